"""What can run a model on this machine: the runtimes that are installed, and our own code."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from mixerkit.errors import UserError
from mixerkit.inference.native import computes, multiplies_eight_bits
from mixerkit.inference.native_compiler import NoCompiler, native_library
from mixerkit.inference.runtimes import NATIVE, Runtime, installed
from mixerkit.spec.mixer import MixerConfig

Target = Literal["onnx", "openvino"]
SUFFIX: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml"}
READERS: dict[Target, tuple[Runtime, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
}
"""The runtimes of others that read a file for each target."""


def readers_of(
    to: Target,
    config: MixerConfig,
    eight_bits: bool = False,
    watch: Callable[[str], None] = lambda line: None,
) -> list[Runtime]:
    """All that run such a model's file for this target here; `watch` is told of compiling."""
    found = [name for name in READERS[to] if name in installed()]
    if to == "onnx" and find_spec("onnx") and native_runs(config, eight_bits, watch):
        found.append(NATIVE)
    return found


def native_runs(
    config: MixerConfig, eight_bits: bool, watch: Callable[[str], None] = lambda line: None
) -> bool:
    """Whether our own code runs such a model here, and well; `watch` is told of compiling, and of a
    compiler that fails."""
    if not computes(config):
        return False
    try:
        native_library(watch)
    except NoCompiler:
        return False
    except UserError as error:
        watch(f"our own code is left out: {error}")
        return False
    return not eight_bits or multiplies_eight_bits()
