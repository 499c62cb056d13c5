"""Exported models: one file (.onnx), or OpenVINO's pair (.xml and a .bin beside it). Running one
needs no PyTorch.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.errors import UserError, unknown
from mixerkit.inference.mixer_graph import METADATA
from mixerkit.inference.runtimes import InFloat, Run, Runtime, installed, open_graph
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict

SUFFIXES = (".onnx", ".xml")
SAID = {
    "input": ("pixels", "normalised"),
    "output": ("logits", "probabilities", "features"),
}
"""What every exported file says of itself, beside its model and its preprocessing."""


@dataclass(frozen=True)
class Exported:
    """A model that a runtime runs. `about`: everything that its file says of it; `run` takes
    images as `takes` says and gives what `gives` says."""

    source: str
    config: MixerConfig
    preprocess: Preprocess | None
    about: dict[str, Any]
    runtime: Runtime
    run: Run

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """[B, K] of 8-bit images as the decoder gives them; log-probabilities where the graph gives
        probabilities, and features where it has no head."""
        return as_logits(self.run(self.prepare(pixels_BIHW)), self.about["output"])

    def probabilities(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        result_BK = self.run(self.prepare(pixels_BIHW))
        return result_BK if self.about["output"] == "probabilities" else softmax(result_BK)

    @property
    def prepare(self) -> Callable[[np.ndarray], np.ndarray]:
        """What makes of 8-bit images [B, I, H, W] what the graph takes; it holds nothing of the
        runtime."""
        if self.about["input"] == "pixels":
            return channels_last
        assert self.preprocess
        return partial(normalised, preprocess=self.preprocess)


def is_exported(source: str) -> bool:
    """Whether a source of models is a file of an exported one."""
    return Path(source).suffix in SUFFIXES


def open_exported(
    path: Path,
    runtime: Runtime | None = None,
    threads: int = 0,
    precision: InFloat = "float32",
    streams: bool = False,
) -> Exported:
    """The model in a file, run by `runtime`, or without one by the first that is installed and can
    read it; the rest as of `open_graph`. `UserError`: no such file, not one of ours, or no runtime
    for it."""
    if not path.is_file():
        target = "openvino" if path.suffix == ".xml" else "onnx"
        raise UserError(
            f"No exported model {path}: `mixer export SOURCE --to {target}` writes one."
        )
    chosen = runtime or _runtime_for(path)
    if chosen == "onnxruntime" and path.suffix == ".xml":
        raise UserError(f"{path} is OpenVINO's and ONNX Runtime cannot read it: export to onnx.")
    _check_readable(path)
    opened = open_graph(path, chosen, METADATA, threads, precision, streams)
    about = about_of(opened.about, path)
    try:
        config = from_dict(MixerConfig, about["model"])
        preprocess = from_dict(Preprocess, about["preprocess"]) if about["preprocess"] else None
        if preprocess:
            _check_agree(config, preprocess)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return Exported(str(path), config, preprocess, about, chosen, opened.run)


def _check_readable(path: Path) -> None:
    """`UserError` where the system does not give the files: a runtime would not say why."""
    for file in [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]:
        try:
            file.open("rb").close()
        except OSError as error:
            of_two = "" if file == path else f" {path} is of no use without it."
            raise UserError(f"Cannot read {file}: {error.strerror}.{of_two}") from error


def _check_agree(config: MixerConfig, preprocess: Preprocess) -> None:
    """`UserError` where a file was changed by hand, and says one thing and another."""
    names, classes = len(preprocess.class_names), config.num_classes
    takes = (config.in_channels, *config.image_hw)
    gives = (preprocess.channels, *preprocess.image_hw)
    if takes != gives:
        raise UserError(
            f"the model takes images of {' × '.join(map(str, takes))} (channels, height, width) "
            f"and their preparation gives {' × '.join(map(str, gives))}: export it again."
        )
    if names and names != classes:
        raise UserError(f"{names} names for {classes} classes: export it again.")


def about_of(text: str, path: Path | str) -> dict[str, Any]:
    """What the file says of itself, or an error that names it."""
    try:
        about = json.loads(text) if text else None
    except ValueError:
        about = None
    if (
        not isinstance(about, dict)
        or any(about.get(key, "") not in known for key, known in SAID.items())
        or not {"model", "preprocess"} <= set(about)
    ):
        raise UserError(
            f"{path} does not say what it is: expected a model that `mixer export` wrote."
        )
    return about


def _runtime_for(path: Path) -> Runtime:
    if path.suffix not in SUFFIXES:
        raise unknown("kind of exported model", path.suffix or path.name, SUFFIXES)
    if path.suffix == ".xml" or "onnxruntime" not in installed():
        return "openvino"
    return "onnxruntime"


def channels_last(pixels_BIHW: np.ndarray) -> np.ndarray:
    """[B, H, W, I], as decoders give images."""
    return np.ascontiguousarray(pixels_BIHW.transpose(0, 2, 3, 1))


def normalised(pixels_BIHW: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """8-bit images as the model's input, float32 [B, I, H, W]."""
    mean, std = (
        np.array(values, np.float32).reshape(-1, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    x_BIHW: np.ndarray = (pixels_BIHW.astype(np.float32) / np.float32(255) - mean) / std
    return x_BIHW


def as_logits(result_BK: np.ndarray, gives: str) -> np.ndarray:
    """What a graph gives as logits [B, K]: of probabilities, their logarithms."""
    if gives != "probabilities":
        return result_BK
    result: np.ndarray = np.log(np.maximum(result_BK, np.finfo(np.float32).tiny))
    return result


def softmax(logits_BK: np.ndarray) -> np.ndarray:
    """Probabilities [B, K]."""
    shifted = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return result
