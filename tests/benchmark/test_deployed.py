"""timm's model in every runtime: the same logits, in a process of its own too, and what happens
where a package is not installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.benchmark.alone import command_of_peer
from mixerkit.benchmark.cold_start import timed
from mixerkit.benchmark.contenders import Contenders
from mixerkit.benchmark.deployed import PEERS, absent, not_installed, open_peer
from mixerkit.benchmark.peer_files import peer_file
from mixerkit.benchmark.peer_settings import KINDS, Setting, settings_of
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess

CONFIG = variant("N/7", in_channels=1, num_classes=10)
NEAR = {"float32": 1e-4, "bfloat16": 0.03}
"""Differences that are no mistake, as shares of the largest output."""
DECIBELS = 10
"""Signal to noise of products in 8 bits at least; the signal is what differs between images."""


def tiny(**changes) -> MlpMixer:
    made = MlpMixer(variant("N/7", in_channels=1, num_classes=10, **changes)).eval()
    torch.nn.init.normal_(made.head.weight)
    made.preprocess = Preprocess(image_size=made.config.image_size, channels=1)
    return made


def answered(model: MlpMixer) -> tuple[np.ndarray, np.ndarray]:
    """Images and the model's outputs."""
    images = np.random.default_rng(0).standard_normal((7, 1, 28, 28), np.float32)
    with torch.inference_mode():
        return images, model(torch.from_numpy(images)).numpy()


def is_near(kind: str, found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether these are the outputs for the first images."""
    off = found - wanted[: len(found)]
    if kind == "int8":
        return bool(wanted.var(axis=0).mean() > 10 ** (DECIBELS / 10) * np.square(off).mean())
    return bool(np.abs(off).max() < NEAR[kind] * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_useless_answers_are_not_near(kind: str) -> None:
    _, wanted = answered(tiny())
    mean = np.broadcast_to(wanted.mean(axis=0), wanted.shape)
    for useless in (0 * wanted, mean, np.roll(wanted, 1, axis=0), wanted[:, ::-1]):
        for count in (7, 1):
            assert not is_near(kind, useless[:count], wanted)
    assert is_near(kind, wanted, wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_every_peer_gives_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every setting and any batch size."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)  # takes long
    model = tiny()
    images, wanted = answered(model)
    threads = torch.get_num_threads()
    for name, peer in PEERS.items():
        file = peer_file(peer.file, model, tmp_path)
        for setting in settings_of(peer.runtime, peer.kind, 1, 2).values():
            run = open_peer(peer, file, CONFIG, setting)
            for count in (7, 1):
                assert is_near(peer.kind, run(images[:count]), wanted), (name, setting)
    assert torch.get_num_threads() == threads


def test_each_precision_has_peers_of_its_own() -> None:
    found = {kind: [p.runtime for p in PEERS.values() if p.kind == kind] for kind in KINDS}
    assert found["float32"] == ["eager", "compiled", "onnxruntime", "openvino"]
    assert found["bfloat16"] == ["eager", "compiled", "openvino"]
    assert found["int8"] == ["onnxruntime", "openvino"]


def test_what_is_not_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert absent("timm", "nncf", "no_such_package") == ["nncf", "no_such_package"]
    assert not_installed(["a", "b"]) == "not installed: pip install a b"


def test_a_peer_without_its_package_is_listed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contenders, "_add_ours", lambda *_: None)
    for package in ("openvino", "onnxruntime", "nncf"):
        monkeypatch.setitem(sys.modules, package, None)
    said: list[str] = []
    found = Contenders(tiny(), tmp_path, said.append)
    assert found.left_out["timm openvino"] == "not installed: pip install openvino"
    assert found.left_out["timm openvino nncf int8"] == "not installed: pip install openvino nncf"
    assert found.left_out["timm onnxruntime"] == "not installed: pip install onnxruntime"
    assert {"timm eager", "timm compiled, frozen weights"} <= set(found.peers)
    assert "timm openvino: not installed: pip install openvino" in said


def test_our_engine_without_runtimes_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("openvino", "onnxruntime", "timm"):
        monkeypatch.setitem(sys.modules, package, None)
    found = Contenders(tiny(), tmp_path, lambda line: None)
    assert not found.peers and not found.ours and len(found.left_out) == len(PEERS) + 3
    assert found.left_out["mixerkit bfloat16"] == "not installed: pip install openvino"
    assert found.left_out["timm eager"] == "not installed: pip install timm"


def test_a_model_that_timm_has_not_leaves_its_peers_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contenders, "_add_ours", lambda *_: None)
    found = Contenders(tiny(token_mixer="linear"), tmp_path, lambda line: None, quick=True)
    assert not found.peers
    assert set(found.left_out.values()) == {
        "timm's Mixer has no counterpart of token_mixer='linear'."
    }


@pytest.mark.slow
def test_a_peer_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    peer = PEERS["timm eager bfloat16"]
    file = peer_file(peer.file, tiny(), tmp_path)
    seconds, peak = timed(command_of_peer(peer, file, CONFIG, Setting(1), (2, 1, 28, 28)))
    assert seconds > 0 and 0.05 < peak < 4
