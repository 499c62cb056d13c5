"""Weights from a file into the model that they claim to be, strictly: all of it or an error."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mixerkit.checkpoint.tensors import Shape, not_finite, read_shapes, read_tensors
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig

NAMES_SHOWN = 5


def read_model(weights: Path, config: MixerConfig) -> MlpMixer:
    """The model of `config` with the weights of a safetensors file.

    Memory is taken only after the file's header has proved to fit. One `UserError` lists every
    tensor that is missing, unexpected, or of another shape or type.
    """
    found = read_shapes(weights)
    model = _without_memory(weights, config, len(found))
    _check_shapes(weights, model, found)
    tensors = read_tensors(weights)
    check_finite(tensors, str(weights))
    model.load_state_dict(tensors, assign=True)
    return model


def with_fresh_head(model: MlpMixer, num_classes: int) -> MlpMixer:
    """The same body under a newly initialised head; the old class names no longer apply."""
    fresh = MlpMixer(replace(model.config, num_classes=num_classes))
    body = {n: t for n, t in model.state_dict().items() if not n.startswith("head.")}
    fresh.load_state_dict(body, strict=False)
    if model.preprocess:
        fresh.preprocess = replace(model.preprocess, class_names=())
    return fresh


def _without_memory(weights: Path, config: MixerConfig, tensors: int) -> MlpMixer:
    if config.depth > tensors:
        raise UserError(
            f"{weights} holds {tensors} tensors, too few for the depth of {config.depth} that "
            f"config.json gives."
        )
    try:
        with torch.device("meta"):
            return MlpMixer(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise UserError(
            f"{weights.with_name('config.json')} describes a model too large to exist."
        ) from error


def _check_shapes(weights: Path, model: MlpMixer, found: dict[str, Shape]) -> None:
    wanted = {name: Shape("F32", tuple(t.shape)) for name, t in model.state_dict().items()}
    lines = [f"missing: {name}" for name in wanted if name not in found]
    lines += [f"unexpected: {name}" for name in found if name not in wanted]
    lines += [
        f"{name}: expected {_shape(wanted[name])}, found {_shape(found[name])}"
        for name in wanted
        if name in found and wanted[name] != found[name]
    ]
    if lines:
        raise UserError(
            f"{weights} does not fit the model that config.json beside it describes:\n  "
            + "\n  ".join(lines)
            + "\nGive it the config.json that it was saved with."
        )


def _shape(shape: Shape) -> str:
    return f"{shape.dtype} {list(shape.size)}"


def check_finite(tensors: dict[str, Tensor], what: str) -> None:
    """Raise `UserError` naming the tensors of `what` that hold NaN or infinity."""
    broken = not_finite(tensors)
    if broken:
        raise UserError(f"{what} has NaN or infinite weights in: {listed(broken)}.")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
