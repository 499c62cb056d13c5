"""The one entry: `load(source)` gives the model that its authors trained, at any size."""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, json_bytes
from mixerkit.checkpoint.files import atomic_folder
from mixerkit.checkpoint.find import find
from mixerkit.checkpoint.foreign import fitted
from mixerkit.checkpoint.merge import (
    assemble,
    check_finite,
    listed,
    merge_into,
    read_tensors_of,
)
from mixerkit.checkpoint.stored import (
    CONFIG,
    VERSION,
    WEIGHTS,
    Stored,
    Told,
    check_agreement,
)
from mixerkit.checkpoint.tensors import write_tensors
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import DEFAULT_METHOD, Enlargement, Method, adapt
from mixerkit.spec.mixer import Size, variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import to_dict

ORIGIN = ("recipe", "data", "step", "zoo", "timm", "layout", "file", "trained_on")
"""Keys of `about` that stay true when the model is changed, as measured figures do not."""


def load(
    source: str | Path,
    *,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    gelu: Literal["tanh", "erf"] | None = None,
    enlargement: Enlargement = "shared",
    method: Method = DEFAULT_METHOD,
    native_size: Size | None = None,
) -> MlpMixer:
    """The model that `source` names, in evaluation mode, on the processor, in float32.

    `source` is a run folder, one of its checkpoints (`RUN@newest`, `RUN@best`, `RUN@STEP`, or the
    checkpoint's folder), a model folder (ours or timm's), a file of weights in any known layout,
    `hf://org/name`, `zoo:NAME`, or a variant label such as "B/16" (fresh weights).

    What differs from the stored model is changed (`model/surgery.py` has the mathematics):

    - `image_size`, one side or (height, width): a whole multiple becomes tiles that share the
      token mixing (`enlargement="shared"`), or one dense model ("dense"); every other size is
      resampled by `method`.
    - `patch_size`: the stem is resized; the image size stays unless it is given too.
    - `num_classes`: a fresh head; 0 for features. `in_channels`: the stem's kernels summed, or
      repeated.
    - `gelu`: what the weights were trained with, where the file does not say it.
      `native_size`: the image size of a file whose tokens form no square.

    The result carries `preprocess` (None for fresh weights), `about`, `source`, and `notes`:
    what was assumed. Figures that were measured on the unchanged model leave `about`. A label
    that is known to be wrong (timm's `goog_in21k_ft_in1k`) gives a warning that says the truth.
    """
    changes: dict[str, Any] = {
        "image_size": image_size,
        "patch_size": patch_size,
        "num_classes": num_classes,
        "in_channels": in_channels,
    }
    found = _read(source, Told(native_size, gelu or ""), read_tensors_of)
    if found is None:
        asked = changes | {"gelu": gelu}
        given = {name: value for name, value in asked.items() if value is not None}
        model = MlpMixer(variant(str(source), **given))
        model.source = f"{source}, fresh weights"
        return model.eval()
    stored, tensors = found
    if stored.warning:
        warnings.warn(stored.warning, stacklevel=2)
    config, notes = stored.config, stored.notes
    if gelu and gelu != config.gelu:
        config = replace(config, gelu=gelu)
        notes = (*(n for n in notes if not n.startswith("GELU")), f"GELU is {gelu}, as asked.")
    adapted, tensors = adapt(config, tensors, **changes, enlargement=enlargement, method=method)
    model = assemble(adapted, tensors)
    model.preprocess, model.about = stored.preprocess, dict(stored.about)
    if adapted != stored.config:
        model.preprocess = fitted(stored.preprocess, adapted)
        model.about = {key: value for key, value in stored.about.items() if key in ORIGIN}
    model.source, model.notes = str(source), notes
    return model.eval()


def load_weights(model: MlpMixer, source: str | Path) -> None:
    """Put the weights that `source` names into `model`, all of them, in place.

    Raises one `UserError` that lists every tensor that is missing, unexpected or of another
    shape, and names the argument of `load` that would bridge it; the model is then as it was.
    """

    def merge(stored: Stored) -> Preprocess:
        preprocess = fitted(stored.preprocess, model.config)
        merge_into(model, stored)
        return preprocess

    found = _read(source, Told(model=model.config), merge)
    if found is None:
        raise UserError(f"{source} is a variant, which has no stored weights: give a file.")
    stored, model.preprocess = found
    if stored.warning:
        warnings.warn(stored.warning, stacklevel=2)
    model.about, model.source, model.notes = dict(stored.about), str(source), stored.notes


T = TypeVar("T")


def _read(source: str | Path, told: Told, read: Callable[[Stored], T]) -> tuple[Stored, T] | None:
    """The stored model that `source` names, and what `read` makes of it; None for a variant label.
    A checkpoint that its run takes away in between is chosen anew."""
    while True:
        stored = find(source, told)
        if stored is None:
            return None
        try:
            return stored, read(stored)
        except UserError:
            if os.path.lexists(stored.weights):
                raise


def save_model(
    folder: Path,
    model: MlpMixer,
    preprocess: Preprocess,
    about: dict[str, Any],
    replace: bool = False,
    vouched: dict[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a model folder: model.safetensors, config.json and manifest.json.

    `about` is free JSON (recipe, data, figures). An existing folder is refused, unless
    `replace`. `vouched`: what else the manifest is to say, of files outside the folder. `half`:
    store float16, rounded, in half the bytes; `load` gives float32 all the same. Weights other than
    finite float32, or too large for `half`, raise `UserError`.
    """
    tensors = dict(model.state_dict())
    others = [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]
    if others:
        raise UserError(f"Models are saved as float32, found other numbers in: {listed(others)}.")
    check_finite(tensors, "The model")
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
        check_finite(tensors, "The model in float16, which ends at 65,504,")
    check_agreement(model.config, preprocess, "This model")
    content = {
        "format": "mixerkit",
        "version": VERSION,
        "model": to_dict(model.config),
        "preprocess": to_dict(preprocess),
        "about": about,
    }
    described = json_bytes(content)
    if len(described) > DESCRIPTION_LIMIT:  # what is written can be read
        raise UserError(
            f"{CONFIG} would take {len(described):,} bytes, and {DESCRIPTION_LIMIT:,} are allowed: "
            f"leave something out of `about`, or shorten the class names."
        )
    known = {"kind": "model"} | (vouched or {})
    with atomic_folder(folder, known, replace=replace) as temporary:
        write_tensors(temporary / WEIGHTS, tensors)
        (temporary / CONFIG).write_bytes(described)
