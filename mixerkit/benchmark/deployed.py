"""timm's Mixer, unmodified, deployed as its users do it: eager, compiled with frozen weights, or as
a graph in ONNX Runtime and OpenVINO; in float32, bfloat16 and 8 bits. Each is opened from a file,
and only those in PyTorch import it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mixerkit.benchmark.peer_settings import (
    Kind,
    PeerRuntime,
    Setting,
    open_in_onnxruntime,
    open_in_openvino,
)
from mixerkit.inference.runtimes import Run
from mixerkit.spec.mixer import MixerConfig


@dataclass(frozen=True)
class Peer:
    """`kind`: in what products are computed. `file`: which of `peer_files.FILES` it is opened from.
    `packages`: what must be installed, besides timm."""

    kind: Kind
    runtime: PeerRuntime
    file: str
    packages: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Every package that must be installed."""
        return ("timm", *self.packages)


_ONNX = ("onnx", "onnxscript", "onnxruntime")
_OPENVINO = ("onnx", "onnxscript", "openvino")
PEERS = {
    "timm eager": Peer("float32", "eager", "weights"),
    "timm compiled, frozen weights": Peer("float32", "compiled", "weights"),
    "timm onnxruntime": Peer("float32", "onnxruntime", "graph", _ONNX),
    "timm openvino": Peer("float32", "openvino", "graph", _OPENVINO),
    "timm eager bfloat16": Peer("bfloat16", "eager", "weights"),
    "timm compiled, frozen weights, bfloat16": Peer("bfloat16", "compiled", "weights"),
    "timm openvino bfloat16": Peer("bfloat16", "openvino", "graph", _OPENVINO),
    "timm onnxruntime dynamic int8": Peer("int8", "onnxruntime", "dynamic", _ONNX),
    "timm openvino nncf int8": Peer("int8", "openvino", "nncf", (*_OPENVINO, "nncf")),
}


def absent(*packages: str) -> list[str]:
    """Those that this Python has not; nothing is imported."""
    return [name for name in packages if find_spec(name) is None]


def not_installed(packages: Sequence[str]) -> str:
    """What stands in the place of figures."""
    return f"not installed: pip install {' '.join(packages)}"


def open_peer(peer: Peer, file: Path, config: MixerConfig, setting: Setting) -> Run:
    """What runs images [B, I, H, W] so."""
    if peer.runtime == "onnxruntime":
        return open_in_onnxruntime(file, setting)
    if peer.runtime == "openvino":
        return open_in_openvino(file, setting, peer.kind)
    from mixerkit.benchmark.peer_pytorch import open_in_pytorch

    return open_in_pytorch(file, config, setting, peer.kind, peer.runtime == "compiled")
