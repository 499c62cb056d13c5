"""Models on disk, and the one entry that finds and loads them.

A source is, in this order: an existing path (run folder, model folder, or a .safetensors file
beside its config.json), `hf://org/name`, `zoo:NAME`, or a variant label (fresh weights).
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixerkit.checkpoint.files import (
    MANIFEST,
    atomic_folder,
    check_file,
    json_bytes,
    listed_entry,
    read_json,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.merge import check_finite, listed, read_model, with_fresh_head
from mixerkit.checkpoint.tensors import write_tensors
from mixerkit.errors import UserError, did_you_mean
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import VARIANTS, MixerConfig, Size, as_pair, is_variant, variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict, to_dict

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VERSION = 1
KEYS = ("format", "version", "model", "preprocess", "about")
ORIGIN = ("recipe", "data", "step")
"""Keys of `about` that stay true under a fresh head, as measured figures do not."""
ZOO = Path(__file__).parent.parent / "weights"
"""The packaged models: one model folder for each `zoo:NAME`."""


@dataclass(frozen=True)
class Stored:
    """A model on disk: its weights file and what config.json says of it."""

    weights: Path
    config: MixerConfig
    preprocess: Preprocess
    about: dict[str, Any]


def save_model(
    folder: Path,
    model: MlpMixer,
    preprocess: Preprocess,
    about: dict[str, Any],
    replace: bool = False,
) -> None:
    """Write a model folder: model.safetensors, config.json and manifest.json.

    `about` is free JSON (recipe, data, figures). An existing folder is refused, unless
    `replace`. Weights other than finite float32 raise `UserError`.
    """
    tensors = dict(model.state_dict())
    others = [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]
    if others:
        raise UserError(f"Models are saved as float32, found other numbers in: {listed(others)}.")
    check_finite(tensors, "The model")
    _check_agreement(model.config, preprocess, "This model")
    content = {
        "format": "mixerkit",
        "version": VERSION,
        "model": to_dict(model.config),
        "preprocess": to_dict(preprocess),
        "about": about,
    }
    with atomic_folder(folder, {"kind": "model"}, replace=replace) as temporary:
        write_tensors(temporary / WEIGHTS, tensors)
        (temporary / CONFIG).write_bytes(json_bytes(content))


def load(
    source: str | Path, *, image_size: Size | None = None, num_classes: int | None = None
) -> MlpMixer:
    """The model that `source` names, in evaluation mode, on the processor, in float32.

    `num_classes` other than the stored one replaces the head by a fresh one, and nothing else
    may differ; `about` then loses its figures. `image_size` changes a variant; stored weights
    keep the size they were trained at. The result carries `preprocess` (None for fresh weights),
    `about` and `source`.
    """
    stored = find(source)
    if stored is None:
        asked = {"image_size": image_size, "num_classes": num_classes}
        given = {name: value for name, value in asked.items() if value is not None}
        model = MlpMixer(variant(str(source), **given))
        model.source = f"{source}, fresh weights"
        return model.eval()
    if image_size is not None and as_pair(image_size) != stored.config.image_hw:
        height, width = stored.config.image_hw
        raise UserError(
            f"{source} was trained at {height} × {width} px and models are loaded at the size "
            f"they were trained at: leave image_size out, found {image_size}."
        )
    model = read_model(stored.weights, stored.config)
    model.preprocess, model.about = stored.preprocess, stored.about
    if num_classes is not None and num_classes != stored.config.num_classes:
        model = with_fresh_head(model, num_classes)
        model.about = {key: value for key, value in stored.about.items() if key in ORIGIN}
    model.source = str(source)
    return model.eval()


# -- finding ------------------------------------------------------------------------------


def packaged() -> list[str]:
    """Names of the models that ship with the package, for `zoo:NAME`."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{CONFIG}"))


def find(source: str | Path) -> Stored | None:
    """The stored model that `source` names, checked but not loaded; None for a variant label."""
    path = _existing(source)
    if path:
        return _at(path)
    if isinstance(source, Path):
        raise UserError(f"No file or folder {source}.")
    if source.startswith("hf://"):
        raise UserError(
            f"{source}: models are not fetched from the Hugging Face hub. Download the folder "
            f"({WEIGHTS} and {CONFIG}) and give its path."
        )
    if source.startswith("zoo:"):
        return _packaged(source.removeprefix("zoo:"))
    if is_variant(source):
        return None
    raise _not_found(source)


def _existing(source: str | Path) -> Path | None:
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown ~user
        return None


def _at(path: Path) -> Stored:
    """The model at an existing path; inside a folder, the manifest vouches for the files."""
    if path.is_file():
        return _beside_config(path)
    if (path / WEIGHTS).exists() or (path / CONFIG).exists():
        if not (path / MANIFEST).exists():
            raise UserError(
                f"{path / MANIFEST} is missing, so the files beside it cannot be checked: restore "
                f"it, or give {path / WEIGHTS} itself to load it unchecked."
            )
        verify_folder(path, kind="model", must_list=(WEIGHTS, CONFIG))
        return _read_config(path / WEIGHTS)
    if (path / "recipe.yaml").is_file():
        if (path / "model").is_dir():
            return _at(path / "model")
        raise UserError(
            f"The run in {path} has not finished, so it has no model yet: wait for it, or go on "
            f"with `mixer train --resume {shlex.quote(str(path))}`."
        )
    raise UserError(
        f"{path} holds no model: expected a run folder, or a folder with {WEIGHTS} and {CONFIG}."
    )


def _beside_config(path: Path) -> Stored:
    if path.suffix != ".safetensors":
        raise UserError(
            f"Expected a folder or a .safetensors file beside its {CONFIG}, found {path}."
        )
    if (path.parent / MANIFEST).exists():
        manifest = read_manifest(path.parent)
        for name in (path.name, CONFIG):
            check_file(path.parent, name, listed_entry(path.parent, name, manifest))
    return _read_config(path)


def _packaged(name: str) -> Stored:
    if name not in packaged():
        raise UserError(
            f"No packaged model 'zoo:{name}'.{did_you_mean(name, packaged())} "
            f"Packaged: {', '.join(packaged()) or 'none'}."
        )
    return _at(ZOO / name)


def _not_found(source: str) -> UserError:
    if source in packaged():
        return UserError(f"No file or folder '{source}'. Did you mean 'zoo:{source}'?")
    names = [*(f"zoo:{name}" for name in packaged()), *VARIANTS]
    near = did_you_mean(source, names) or did_you_mean(f"zoo:{source}", names)
    return UserError(
        f"No model '{source}'.{near} Expected an existing path (run folder, model folder or "
        f".safetensors file), zoo:NAME, or a variant: {', '.join(names)}."
    )


# -- reading ------------------------------------------------------------------------------


def _read_config(weights: Path) -> Stored:
    """config.json beside `weights`, every key understood."""
    path = weights.parent / CONFIG
    if not weights.is_file():
        raise UserError(f"{weights} is missing: {CONFIG} alone is no model.")
    if not path.is_file():
        raise UserError(f"{path} is missing: it says what model {weights.name} holds.")
    content = read_json(path)
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
    _check_agreement(config, preprocess, str(path))
    return Stored(weights, config, preprocess, content["about"])


def _check_agreement(config: MixerConfig, preprocess: Preprocess, what: str) -> None:
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
