"""Models on disk, described without reading their weights: what is known of each, and ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, read_json
from mixerkit.errors import UserError, did_you_mean
from mixerkit.spec.mixer import MixerConfig, Size
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VERSION = 1
KEYS = ("format", "version", "model", "preprocess", "about")


@dataclass(frozen=True)
class Stored:
    """A model on disk: its weights file, and what is known of it.

    `notes` are sentences about what was assumed because the file does not say it; `warning` is
    one about a label that says something else than the truth. `part`: what the names of its tensors
    begin with, in a checkpoint, which holds others too.
    """

    weights: Path
    config: MixerConfig
    preprocess: Preprocess
    about: dict[str, Any]
    notes: tuple[str, ...] = ()
    warning: str = ""
    part: str = ""


@dataclass(frozen=True)
class Told:
    """What the caller knows of a file of weights, because the file does not say it: the image
    size where its tokens form no square, the GELU that it was trained with, and what model the
    weights are for, where one is there already."""

    native_size: Size | None = None
    gelu: str = ""
    model: MixerConfig | None = None


NOTHING_TOLD = Told()


def ours(weights: Path, told: Told) -> Stored:
    """Our own: config.json beside `weights`, every key understood."""
    must_not_be_told(weights.parent, told)
    path = weights.parent / CONFIG
    if not weights.is_file():
        raise UserError(f"{weights} is missing: {CONFIG} alone is no model.")
    if not path.is_file():
        raise UserError(f"{path} is missing: it says what model {weights.name} holds.")
    content = read_json(path, DESCRIPTION_LIMIT)
    form, version = content.get("format"), content.get("version")
    if form != "mixerkit" or version != VERSION:
        raise UserError(
            f"{path}: expected format 'mixerkit', version {VERSION}; found format {form!r}, "
            f"version {version!r}. A newer mixerkit may have written it."
        )
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key '{key}'.{did_you_mean(key, KEYS)}")
    absent = [key for key in KEYS if key not in content]
    if absent or not isinstance(content["about"], dict):
        raise UserError(f"{path}: expected a mapping under {', '.join(absent) or 'about'}.")
    try:
        config = from_dict(MixerConfig, content["model"], "model")
        preprocess = from_dict(Preprocess, content["preprocess"], "preprocess")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    check_agreement(config, preprocess, str(path))
    return Stored(weights, config, preprocess, content["about"])


def must_not_be_told(folder: Path, told: Told) -> None:
    """Raise `UserError` where the caller gives a size that a folder of ours says itself."""
    if told.native_size is not None:
        raise UserError(
            f"{folder} says its image size itself: leave native_size out, and give image_size for "
            f"another one."
        )


def check_agreement(config: MixerConfig, preprocess: Preprocess, what: str) -> None:
    """Preprocessing must make what the model takes, and name the classes that it gives."""
    pairs = [
        ("image size", config.image_hw, preprocess.image_hw),
        ("number of channels", config.in_channels, preprocess.channels),
    ]
    if preprocess.class_names:
        pairs.append(("number of classes", config.num_classes, len(preprocess.class_names)))
    for name, model, prepared in pairs:
        if model != prepared:
            raise UserError(f"{what}: the model's {name} is {model}, preprocess has {prepared}.")
