"""Models that others wrote, described: a file of weights alone, or a folder of timm's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, read_json
from mixerkit.checkpoint.recognise import Contents, contents, infer, open_weights
from mixerkit.checkpoint.stored import CONFIG, WEIGHTS, Stored, Told
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_classes
from mixerkit.spec.mixer import MixerConfig, Size, variant_of
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.zoo import MIIL, Published, correction, published_as


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
                f"Without it, say what GELU it was trained with: gelu=tanh or gelu=erf, such as by "
                f"`mixer convert {path.name} FOLDER --gelu tanh`, which writes it anew."
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


def timm_weights(folder: Path) -> Path:
    """The file of weights in a folder of timm's."""
    files = [folder / name for name in (WEIGHTS, "pytorch_model.bin")]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        raise UserError(f"{folder} has a {CONFIG} of timm's, but no {WEIGHTS}.")
    return found


def timm_folder(folder: Path, weights: Path, told: Told) -> Stored:
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
