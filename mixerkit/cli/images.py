"""Which images a model is measured on, as `mixer evaluate` and its protocols take them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixerkit.cli.arguments import leading_word
from mixerkit.cli.running import located
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Data
from mixerkit.spec.strict import from_dict

if TYPE_CHECKING:
    from mixerkit.data.sources import ImageSplit, Splits
    from mixerkit.inference.module import ExportedModel
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

SPLITS = ("test", "validation", "train")
LISTS = {"--data.classes": "class", "--tasks": "task"}
"""Options that take names, and what of."""


@dataclass(frozen=True)
class Images:
    """Which images they are, and how they are read. What is not given of the images that the model
    was trained on is as in its training; of others all are taken."""

    source: str = ""
    """A named set, a folder or an address, as for training; by default what the model was trained
    on."""
    root: str = ""
    """Folder in which named sets are looked for first."""
    classes: tuple[str, ...] = ()
    """Only the images of these classes, in the source's order."""
    holdout: float = 0.0
    """Images of the training split that are held out, and are its validation images: a count, or a
    share below 1."""
    split_seed: int = 0
    """Fixes which images are held out."""
    workers: int = 0
    """Threads that decode images; 0 takes one per processor."""
    patience: float = 30.0
    """Seconds without any image read, while one is waited for, before it is given up."""

    def __post_init__(self) -> None:
        _as_data(self)  # refuses what cannot be


def _as_data(images: Images) -> Data:
    return Data(**{one.name: getattr(images, one.name) for one in fields(Images)})


@dataclass(frozen=True)
class Selected:
    """A split, which of the source's it is (of `SPLITS`, or "all" of other images that are not
    divided), and where the source was found."""

    split: "ImageSplit"
    name: str
    origin: str


def model_named(words: list[str], switches: tuple[str, ...], protocol: str = "") -> str:
    """The model that `words` begin with."""
    name = leading_word(words, switches)
    if not name:
        how = f"--protocol {protocol} [options]" if protocol else "[options]"
        raise UserError(
            f"Which model? It comes first: `mixer evaluate MODEL {how}`, where MODEL is a run "
            f"folder, RUN@best or zoo:fashion-demo."
        )
    return name


def refuse_empty_lists(words: list[str]) -> None:
    """`UserError` where a list is given without any name, which would be all of them."""
    for i, word in enumerate(words):
        option, _, value = word.partition("=")
        following = "".join(words[i + 1 : i + 2])
        nothing = not value and (not following or following.startswith("--"))
        if option in LISTS and nothing:
            raise UserError(
                f"{option} needs the name of at least one {LISTS[option]} after it, found none: "
                f"leave it out to take all."
            )


def loaded(name: str) -> "tuple[MlpMixer, Preprocess]":
    """The PyTorch model, which must say which classes it knows, and how its images are prepared."""
    from mixerkit.checkpoint.load import load

    model = load(name)
    return model, _prepared(model)


def measurable(name: str) -> "tuple[MlpMixer | ExportedModel, Preprocess]":
    """The same of an exported model too."""
    from mixerkit.inference.exported import is_exported, open_exported
    from mixerkit.inference.module import ExportedModel

    if not is_exported(name):
        return loaded(name)
    model = ExportedModel(open_exported(Path(name)))
    return model, _prepared(model)


def _prepared(model: "MlpMixer | ExportedModel") -> "Preprocess":
    if model.preprocess is None or not model.preprocess.class_names:
        raise UserError(
            f"{model.source}: this model does not say which classes it knows. Give a run folder, "
            f"a model folder or zoo:NAME."
        )
    return model.preprocess


def own_data(model: "MlpMixer | ExportedModel") -> Data:
    """The data that the model's file says it was trained on; without a source where it says
    nothing."""
    about: dict[str, Any] = dict(model.about)
    return from_dict(Data, about["data"]) if "data" in about else Data(source="")


def source_named(on: str, images: Images) -> str:
    """The images that --on or --data.source names, or nothing."""
    if on and images.source and on != images.source:
        raise UserError(
            f"--on {on} and --data.source {images.source} name two sources: leave one out."
        )
    return on or images.source


def data_named(images: Images, source: str, own: Data) -> Data:
    """The data called `source`, or else a model's `own`, as `images` says. What training took of
    its own data, and held out, says nothing about other data."""
    if not (source or own.source):
        raise UserError(
            "Which images? This model does not say which it was trained on: give --on NAME|FOLDER."
        )
    # other data may be beside a model's own, where these still are
    root = own.root if not source or (own.root and Path(own.root).is_dir()) else ""
    named = replace(_as_data(images), source=source or own.source, root=images.root or root)
    if not same_images(named, own):
        return named
    return replace(
        named,
        classes=images.classes or own.classes,
        holdout=images.holdout or own.holdout,
        split_seed=images.split_seed or own.split_seed,
        join_validation=own.join_validation,
    )


def same_images(one: Data, other: Data) -> bool:
    """Whether both name the same images, whatever the folder that the command runs in."""
    first, second = located(one), located(other)
    return (first.source, first.root) == (second.source, second.root)


def choose_split(data: Data, wanted: str, own: Data) -> Selected:
    """The split `wanted`, or for "auto" the one to measure on. Where a model was trained on other
    images than its `own`, all of these can be taken."""
    from mixerkit.data.sources import opened

    splits = opened(data)
    others = not same_images(data, own)
    automatic = SPLITS if others else ("test", "validation")
    names = automatic if wanted == "auto" else (wanted,)
    for name in names:
        if getattr(splits, name):
            title = "all" if others and _present(splits) == ["train"] else name
            return Selected(getattr(splits, name), title, splits.origin)
    raise UserError(
        f"{data.source} has no {' or '.join(names)} split, it has "
        f"{', '.join(_present(splits)) or 'no images at all'}: choose one with --split, or hold "
        f"images out with --data.holdout."
    )


def _present(splits: "Splits") -> list[str]:
    return [name for name in SPLITS if getattr(splits, name)]
