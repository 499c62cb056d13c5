"""A graph that `mixer_graph` wrote, run by our own code: its constants are read from it.

Letters: B batch, I image channels, H W image height and width, h w those of a patch, P pixels of a
patch, C channels, O I outputs and inputs of a product, K classes.
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
from mixerkit.inference.native import Native, check_computes
from mixerkit.inference.native_constants import Ready
from mixerkit.inference.runtimes import Run, unreadable
from mixerkit.inference.stem_graph import MIDDLE, PIXELS, STEM
from mixerkit.results import usable_cores
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict


class NativeGraph:
    """A graph in memory or in a file. `by_quarters`: as `Native` has it. `metadata`: the texts in
    it. `UserError`: it cannot be read or is none of ours, our code does not compute such a model or
    cannot be compiled, or the package onnx is missing."""

    def __init__(self, graph: bytes | Path, by_quarters: bool = False) -> None:
        onnx = onnx_module()
        try:
            content = graph if isinstance(graph, bytes) else graph.read_bytes()
            model = onnx.load_model_from_string(content)
        except Exception as error:  # of protobuf's classes, too
            raise unreadable(graph, "onnx", error) from error
        self.metadata = {one.key: one.value for one in model.metadata_props}
        name = "the graph" if isinstance(graph, bytes) else str(graph)
        about = about_of(self.metadata.get(METADATA, ""), name)
        given = about["preprocess"]
        self._takes, self._gives = about["input"], about["output"]
        try:
            config = from_dict(MixerConfig, about["model"])
            check_computes(config)
            self._preprocess = from_dict(Preprocess, given) if given else None
            read = _Read(model).ready(config, self._preprocess, self._takes)
            self._native = Native(read, by_quarters=by_quarters)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error

    def run(self, threads: int, streams: bool) -> Run:
        """As `runtimes.open_graph` has it."""
        run: Run = self._native.by(threads or usable_cores(), streams)
        if self._takes == "pixels":
            assert self._preprocess
            run = partial(_of_pixels, run, self._preprocess)
        return partial(_probabilities, run) if self._gives == "probabilities" else run


def _of_pixels(run: Run, preprocess: Preprocess, pixels_BHWI: np.ndarray) -> np.ndarray:
    return run(normalised(pixels_BHWI.transpose(0, 3, 1, 2), preprocess))


def _probabilities(run: Run, images: np.ndarray) -> np.ndarray:
    return softmax(run(images))


class _Read:
    """The constants of a graph, by name, and what its operations take."""

    def __init__(self, model: Any) -> None:
        array = onnx_module().numpy_helper.to_array
        self.arrays: Mapping[str, np.ndarray] = {
            one.name.removesuffix(":half"): array(one) for one in model.graph.initializer
        }
        self.inputs = {node.name: list(node.input) for node in model.graph.node}

    def ready(self, config: MixerConfig, preprocess: Preprocess | None, takes: str) -> Ready:
        """As our code takes them; what is missing it finds out itself."""
        weights: dict[str, np.ndarray] = {}
        ranges: dict[str, Range] = {}
        parts = list(dict.fromkeys(name.rpartition("/")[0] for name in self.arrays))
        for part in parts:
            matrix = self._matrix(part)
            if matrix is not None:
                weights[f"{part}.weight"] = matrix
            elif f"{part}/weight" in self.arrays:  # of a LayerNorm, whose bias may be left out
                weights[f"{part}.weight"] = self._float(f"{part}/weight")
                weights[f"{part}.bias"] = np.zeros_like(weights[f"{part}.weight"])
            if f"{part}/bias" in self.arrays:
                weights[f"{part}.bias"] = self._float(f"{part}/bias").reshape(-1)
            if f"{part}/steps" in self.arrays:
                ranges[part] = PIXELS if part == STEM else self._range(part)
        if STEM not in ranges:
            return Ready(config, weights, ranges)
        if takes != "pixels":
            return Ready(config, weights, ranges, *self._mean_and_std())
        assert preprocess
        weights[f"{STEM}.weight"] = _channels_first(weights[f"{STEM}.weight"], config)
        return Ready(config, weights, ranges, preprocess.mean, preprocess.std)

    def _array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UserError(f"The graph has no constant {name}: export the model again.")
        return self.arrays[name]

    def _float(self, name: str) -> np.ndarray:
        return self._array(name).astype(np.float32)

    def _matrix(self, part: str) -> np.ndarray | None:
        """[O, I], or the kernel of the patch embedding, if this part has one."""
        if f"{part}/steps" in self.arrays:
            steps_IO = self._float(f"{part}/steps")
            return (steps_IO * self._float(f"{part}/scales")).T
        if f"{part}/weight" not in self.arrays or self.arrays[f"{part}/weight"].ndim == 1:
            return None
        matrix = self._float(f"{part}/weight")
        product = self.inputs.get(f"{part}/MatMul")
        on_right = product is not None and product[1] == f"{part}/weight"
        return matrix.T if on_right else matrix

    def _range(self, part: str) -> Range:
        scale = self._array(f"{part}/scale").item()
        low = -scale * self._array(f"{part}/zero_point").item()
        return Range(low, low + 255 * scale)

    def _mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By which pixels became the input, of which the graph makes pixels again."""
        std_I = self._float(f"{STEM}/mul").reshape(-1)
        mean_I = self._float(f"{STEM}/add").reshape(-1) + np.float32(MIDDLE / 255)
        return tuple(mean_I.tolist()), tuple(std_I.tolist())


def _channels_first(matrix_CP: np.ndarray, config: MixerConfig) -> np.ndarray:
    """The kernel [C, h·w·I] as [C, I·h·w]; `UserError`: it is not of such patches."""
    shape = (len(matrix_CP), *config.patch_hw, config.in_channels)
    if matrix_CP.size != np.prod(shape):
        raise UserError(
            f"Expected a patch embedding of {list(shape[1:])} (height, width, channels), found "
            f"{matrix_CP.shape[1]} pixels: export the model again."
        )
    return matrix_CP.reshape(shape).transpose(0, 3, 1, 2).reshape(len(matrix_CP), -1)
