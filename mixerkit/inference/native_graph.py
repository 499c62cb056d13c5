"""A graph that `mixer_graph` wrote, run by our own code: its constants are read from it.

Letters: B batch, I image channels, H W image height and width, h w those of a patch, O I outputs
and inputs of a product, K classes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.exported import about_of, normalised, softmax
from mixerkit.inference.graph import Range, onnx_module
from mixerkit.inference.mixer_graph import METADATA
from mixerkit.inference.native import Native, computes
from mixerkit.inference.native_constants import Ready
from mixerkit.inference.runtimes import Opened, Run, by_threads, unreadable
from mixerkit.inference.stem_graph import MIDDLE, PIXELS, STEM
from mixerkit.results import usable_cores
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict


def open_native(graph: bytes | Path, key: str, threads: int, streams: bool) -> Opened:
    """A graph as `runtimes.open_graph` opens it. `UserError`: it is none of ours, or our code does
    not compute such a model, or it cannot be compiled."""
    try:
        content = graph if isinstance(graph, bytes) else graph.read_bytes()
        model = onnx_module().load_model_from_string(content)
    except Exception as error:  # some are of a package that onnx uses
        raise unreadable(graph, "onnx", error) from error
    metadata = {one.key: one.value for one in model.metadata_props}
    about = about_of(metadata.get(METADATA, ""), _named(graph))
    run = native_run(model, about, threads, streams)
    return Opened(run, metadata.get(key, ""))


def native_run(model: Any, about: Mapping[str, Any], threads: int, streams: bool) -> Run:
    """`about`: what the graph says of itself."""
    config = from_dict(MixerConfig, about["model"])
    if not computes(config):
        raise UserError(f"Our own code does not compute the token mixer {config.token_mixer}.")
    preprocess = from_dict(Preprocess, about["preprocess"]) if about["preprocess"] else None
    count = threads or usable_cores()
    native = Native(_Read(model).ready(config, preprocess, about), threads=1 if streams else count)
    run: Run = by_threads(native, count) if streams else native
    if about["input"] == "pixels":
        assert preprocess
        run = partial(_of_pixels, run, preprocess)
    return partial(_probabilities, run) if about["output"] == "probabilities" else run


def _of_pixels(run: Run, preprocess: Preprocess, pixels_BHWI: np.ndarray) -> np.ndarray:
    return run(normalised(pixels_BHWI.transpose(0, 3, 1, 2), preprocess))


def _probabilities(run: Run, images: np.ndarray) -> np.ndarray:
    return softmax(run(images))


class _Read:
    """The constants of a graph, by name, and what its products take."""

    def __init__(self, model: Any) -> None:
        array = onnx_module().numpy_helper.to_array
        self.arrays = {
            one.name.removesuffix(":half"): array(one) for one in model.graph.initializer
        }
        self.inputs = {node.name: list(node.input) for node in model.graph.node}

    def ready(
        self, config: MixerConfig, preprocess: Preprocess | None, about: Mapping[str, Any]
    ) -> Ready:
        """As our code takes them."""
        weights: dict[str, np.ndarray] = {}
        ranges: dict[str, Range] = {}
        for layer in (name for name in self._parts() if self._has_matrix(name)):
            weights[f"{layer}.weight"] = self._matrix(layer)
            weights[f"{layer}.bias"] = self._float(f"{layer}/bias").reshape(-1)
            if f"{layer}/steps" in self.arrays:
                ranges[layer] = PIXELS if layer == STEM else self._range(layer)
        for norm in (name for name in self._parts() if name.endswith("norm")):
            weight = weights[f"{norm}.weight"] = self._float(f"{norm}/weight")
            bias = f"{norm}/bias"
            known = bias in self.arrays
            weights[f"{norm}.bias"] = self._float(bias) if known else np.zeros_like(weight)
        if STEM in ranges:
            if about["input"] == "pixels":
                weights[f"{STEM}.weight"] = _channels_first(weights[f"{STEM}.weight"], config)
            else:
                preprocess = self._of_input()
        return Ready(config, weights, ranges, preprocess)

    def _parts(self) -> list[str]:
        return list(dict.fromkeys(name.rpartition("/")[0] for name in self.arrays))

    def _float(self, name: str) -> np.ndarray:
        return self.arrays[name].astype(np.float32)

    def _has_matrix(self, part: str) -> bool:
        weight = self.arrays.get(f"{part}/weight")
        return f"{part}/steps" in self.arrays or (weight is not None and weight.ndim > 1)

    def _matrix(self, part: str) -> np.ndarray:
        """[O, I], or the kernel of the patch embedding."""
        if f"{part}/steps" in self.arrays:
            steps_IO = self._float(f"{part}/steps")
            return (steps_IO * self._float(f"{part}/scales")).T
        matrix = self._float(f"{part}/weight")
        product = self.inputs.get(f"{part}/MatMul")
        on_right = product is not None and product[1] == f"{part}/weight"
        return matrix.T if on_right else matrix

    def _range(self, part: str) -> Range:
        scale = self.arrays[f"{part}/scale"].item()
        low = -scale * self.arrays[f"{part}/zero_point"].item()
        return Range(low, low + 255 * scale)

    def _of_input(self) -> Preprocess:
        """How pixels became the input, of which the graph makes pixels again."""
        std_I = self._float(f"{STEM}/mul").reshape(-1)
        mean_I = self._float(f"{STEM}/add").reshape(-1) + np.float32(MIDDLE / 255)
        return Preprocess(mean=tuple(mean_I.tolist()), std=tuple(std_I.tolist()))


def _channels_first(matrix_CP: np.ndarray, config: MixerConfig) -> np.ndarray:
    """The kernel [C, h·w·I] as [C, I·h·w]."""
    shape = (len(matrix_CP), *config.patch_hw, config.in_channels)
    return matrix_CP.reshape(shape).transpose(0, 3, 1, 2).reshape(len(matrix_CP), -1)


def _named(graph: bytes | Path) -> Path:
    return graph if isinstance(graph, Path) else Path("the graph")
