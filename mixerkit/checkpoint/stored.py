"""Models on disk, described without reading their weights: ours, timm's folders, single files."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, read_json
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    check_file,
    listed_entry,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.recognise import Contents, contents, infer, open_weights
from mixerkit.errors import UserError, did_you_mean
from mixerkit.spec.imagenet import imagenet_classes
from mixerkit.spec.mixer import MixerConfig, Size, variant_of
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict
from mixerkit.spec.zoo import MIIL, Published, correction, published_as

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VERSION = 1
KEYS = ("format", "version", "model", "preprocess", "about")


@dataclass(frozen=True)
class Stored:
    """A model on disk: its weights file, and what is known of it.

    `notes` are sentences about what was assumed because the file does not say it; `warning` is
    one about a label that says something else than the truth.
    """

    weights: Path
    config: MixerConfig
    preprocess: Preprocess
    about: dict[str, Any]
    notes: tuple[str, ...] = ()
    warning: str = ""


@dataclass(frozen=True)
class Told:
    """What the caller knows of a file of weights, because the file does not say it: the image
    size where its tokens form no square, the GELU that it was trained with, and what model the
    weights are for, where one is there already."""

    native_size: Size | None = None
    gelu: str = ""
    model: MixerConfig | None = None


NOTHING_TOLD = Told()


def at(path: Path, told: Told = NOTHING_TOLD) -> Stored:
    """The model at an existing path: a run folder, a model folder of ours or of timm's, or a
    file of weights in any known layout. Inside a folder of ours the manifest vouches for the files.
    """
    if path.is_file():
        return _file(path, told)
    if (path / CONFIG).exists() or (path / WEIGHTS).exists():
        if _kind(path) == "timm":
            return _timm_folder(path, _timm_weights(path), told)
        if not (path / MANIFEST).exists():
            raise UserError(
                f"{path / MANIFEST} is missing, so the files beside it cannot be checked: restore "
                f"it, or give {path / WEIGHTS} itself to load it unchecked."
            )
        verify_folder(path, kind="model", must_list=(WEIGHTS, CONFIG))
        return _ours(path / WEIGHTS, told)
    if (path / "recipe.yaml").is_file():
        if (path / "model").is_dir():
            return at(path / "model", told)
        raise UserError(
            f"The run in {path} has not finished, so it has no model yet: wait for it, or go on "
            f"with `mixer train --resume {shlex.quote(str(path))}`."
        )
    raise UserError(
        f"{path} holds no model: expected a run folder, or a folder with {WEIGHTS} and {CONFIG}."
    )


def _file(path: Path, told: Told) -> Stored:
    """A file of weights, with the config.json beside it where that belongs to it."""
    kind = _kind(path.parent) if path.suffix in (".safetensors", ".bin") else ""
    if kind == "timm":
        return _timm_folder(path.parent, path, told)
    if path.name != WEIGHTS or not kind:
        return foreign(path, told)
    if (path.parent / MANIFEST).exists():
        manifest = read_manifest(path.parent)
        for name in (path.name, CONFIG):
            check_file(path.parent, name, listed_entry(path.parent, name, manifest))
    return _ours(path, told)


def _kind(folder: Path) -> str:
    """Whose config.json lies in a folder: "timm", "mixerkit" (or damaged), or nobody's."""
    path = folder / CONFIG
    if not path.is_file():
        return ""
    return "timm" if "architecture" in read_json(path, DESCRIPTION_LIMIT) else "mixerkit"


# -- ours ---------------------------------------------------------------------------------


def _ours(weights: Path, told: Told) -> Stored:
    """config.json beside `weights`, every key understood."""
    if told.native_size is not None:
        raise UserError(
            f"{weights.parent} says its image size itself: leave native_size out, and give "
            f"image_size for another one."
        )
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


# -- others' ------------------------------------------------------------------------------


def foreign(
    path: Path,
    told: Told,
    *,
    preprocess: Preprocess | None = None,
    about: dict[str, Any] | None = None,
    likely_size: Size | None = None,
) -> Stored:
    """A file of weights alone: its layout by the names, its configuration by the shapes.

    `preprocess` is what is known from elsewhere. What is not known is assumed, and `notes` says so.
    """
    with open_weights(path) as file:
        found, chosen = contents(file), file.note
        layout = found.layout
        if layout.name == "mixerkit" and not told.gelu:
            raise UserError(
                f"{path.parent / CONFIG} is missing: it says what model {path.name} holds. "
                f"Without it, say what GELU it was trained with: gelu=tanh or gelu=erf."
            )
        gelu = told.gelu or layout.gelu
        size = told.native_size
        config = _configuration(found, path, told, likely_size, gelu)
    notes = []
    if size is None and likely_size is None:
        height, width = config.image_hw
        notes.append(f"Images are {height} × {width} px: a square of {config.num_patches} patches.")
    if not told.gelu:
        why = {
            "tanh": "as the authors trained (Flax's default)",
            "erf": "as PyTorch trains; weights that the authors trained need gelu=tanh",
        }[config.gelu]
        notes.append(f"GELU is {config.gelu}: {why}.")
    if preprocess is None:
        preprocess = fitted(Preprocess(resize_to=256, channels=3), config)
        notes.append(
            f"Images are prepared as the authors did: values in [-1, 1], short side to "
            f"{preprocess.resize_to} px, centre crop."
        )
    preprocess = fitted(preprocess, config)
    if config.num_classes == len(imagenet_classes()) and not preprocess.class_names:
        preprocess = replace(preprocess, class_names=imagenet_classes())
        notes.append("Classes are ImageNet-1k's, as with all published models of 1000 classes.")
    notes.append(f"LayerNorm's epsilon is {config.norm_eps:g}, as {layout.title} computes it.")
    if chosen:
        notes.append(chosen)
    if found.beside:
        notes.append(f"{found.beside} tensors beside the weights (a training state) were left.")
    described = {"layout": layout.name, "file": path.name} | (about or {})
    return Stored(path, config, preprocess, described, tuple(notes))


def _configuration(
    found: Contents, path: Path, told: Told, likely_size: Size | None, gelu: str
) -> MixerConfig:
    """What the shapes say; where they say nothing that makes sense, what the weights are for, so
    that every difference to it can be listed."""
    known: dict[str, Any] = {"gelu": gelu, "norm_eps": found.layout.eps}
    if told.model is None:
        return infer(found, path, told.native_size, likely_size, **known)
    try:
        return infer(found, path, None, told.model.image_size, **known)
    except UserError:
        return replace(told.model, **known)


def fitted(preprocess: Preprocess, config: MixerConfig) -> Preprocess:
    """The same preparation for the image size, channels and classes of `config`.

    The side before the crop keeps its ratio to the image. One channel takes the average of
    several means; several repeat in turn.
    """
    old, new = max(preprocess.image_hw), max(config.image_hw)
    before = preprocess.resize_to and max(new, round(preprocess.resize_to * new / old))
    names = preprocess.class_names if len(preprocess.class_names) == config.num_classes else ()
    return replace(
        preprocess,
        image_size=config.image_size,
        resize_to=before,
        channels=config.in_channels,
        mean=_for_channels(preprocess.mean, config.in_channels),
        std=_for_channels(preprocess.std, config.in_channels),
        class_names=names,
    )


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) in (1, channels):
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))


def _timm_weights(folder: Path) -> Path:
    files = [folder / name for name in (WEIGHTS, "pytorch_model.bin")]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        raise UserError(f"{folder} has a {CONFIG} of timm's, but no {WEIGHTS}.")
    return found


def _timm_folder(folder: Path, weights: Path, told: Told) -> Stored:
    """timm's config.json beside `weights`, with what its tag really stands for.

    timm keeps the tag of the weights that a model started from when it is trained further, so the
    tag counts only where the classes and the shape are those of the published file.
    """
    content = read_json(folder / CONFIG, DESCRIPTION_LIMIT)
    architecture, cfg = content["architecture"], content.get("pretrained_cfg", {})
    if not isinstance(architecture, str) or not isinstance(cfg, dict):
        raise UserError(f"{folder / CONFIG}: expected timm's architecture and pretrained_cfg.")
    tag = f"{architecture}.{cfg.get('tag') or ''}"
    preprocess = _timm_preprocess(folder, cfg, content.get("label_names"))
    stored = foreign(
        weights,
        told,
        preprocess=preprocess,
        about={"timm": tag},
        likely_size=preprocess.image_size,
    )
    truth = published_as(tag)
    if truth is None or not _is(truth, stored.config):
        return stored
    known = as_published(weights, truth, told, preprocess.image_size)
    return replace(known, about=stored.about | known.about, warning=correction(tag))


def as_published(
    path: Path, published: Published, told: Told, likely_size: Size | None = None
) -> Stored:
    """A file of weights that is known to be the published one."""
    return foreign(
        path,
        replace(told, gelu=told.gelu or published.gelu),
        preprocess=published.prepared,
        about={"zoo": published.name, "trained_on": published.trained_on},
        likely_size=likely_size,
    )


def _is(published: Published, config: MixerConfig) -> bool:
    """Whether a model has the shape and the classes of a published one."""
    label, classes = variant_of(config), config.num_classes
    return label == published.variant and classes == published.num_classes


def _timm_preprocess(folder: Path, cfg: dict[str, Any], names: Any) -> Preprocess:
    """timm's pretrained_cfg as ours: the short side is the image side over crop_pct. `names` are
    those of the classes, where they are a list."""
    try:
        channels, height, width = cfg.get("input_size", (3, 224, 224))
        size = max(int(height), int(width))
        return Preprocess(
            image_size=(int(height), int(width)),
            channels=int(channels),
            resize_to=int(size / float(cfg.get("crop_pct", 0.875))),
            interpolation=cfg.get("interpolation", "bicubic"),
            mean=tuple(cfg.get("mean", MIIL.mean)),
            std=tuple(cfg.get("std", MIIL.std)),
            class_names=tuple(map(str, names)) if isinstance(names, list) else (),
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{folder / CONFIG}: pretrained_cfg is not understood: {error}") from error
