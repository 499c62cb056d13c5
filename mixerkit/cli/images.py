"""Which images a model is measured on, as `mixer evaluate` and its protocols take them."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mixerkit.cli.arguments import leading_word, value_of
from mixerkit.cli.running import located
from mixerkit.cli.text import plural
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import readable
from mixerkit.spec.recipe import Data
from mixerkit.spec.strict import from_dict

if TYPE_CHECKING:
    from mixerkit.data.sources import ImageSplit, Splits
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

SPLITS = ("test", "validation", "train")


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


def loaded(name: str) -> "tuple[MlpMixer, Preprocess]":
    """The model, which must say which classes it knows, and how its images are prepared."""
    from mixerkit.checkpoint.load import load

    model = load(name)
    if model.preprocess is None or not model.preprocess.class_names:
        raise UserError(
            f"{model.source}: this model does not say which classes it knows. Give a run folder, "
            f"a model folder or zoo:NAME."
        )
    return model, model.preprocess


def own_data(model: "MlpMixer", unsaid: str = Data.source) -> Data:
    """The data that the model's file says it was trained on; the source `unsaid` where it says
    nothing."""
    about: dict[str, Any] = dict(model.about)
    return from_dict(Data, about["data"]) if "data" in about else Data(source=unsaid)


def source_named(words: list[str]) -> str:
    """The images that `words` name, or nothing."""
    on, source = value_of("--on", words), value_of("--data.source", words)
    if on and source and on != source:
        raise UserError(f"--on {on} and --data.source {source} name two sources: leave one out.")
    return on or source


def data_named(words: list[str], own: Data, source: str) -> Data:
    """The data called `source`, in the place that `words` name, or else `own`. What training took
    of its own data says nothing about other data, which is taken whole."""
    root = value_of("--data.root", words)
    named = replace(own, source=source or own.source, root=root or own.root)
    if same_images(named, own):
        return own
    return replace(named, holdout=0.0, split_seed=0, classes=(), join_validation=False)


def same_images(one: Data, other: Data) -> bool:
    """Whether both name the same images, whatever the folder that the command runs in."""
    first, second = located(one), located(other)
    return (first.source, first.root) == (second.source, second.root)


def choose_split(data: Data, wanted: str, foreign: bool) -> "tuple[ImageSplit, str]":
    """The split `wanted`, or for "auto" the one to measure on, and where it was found. `foreign`:
    whether the model was trained on other images, so that all of these can be taken."""
    from mixerkit.data.sources import opened

    splits = opened(data)
    automatic = SPLITS if foreign else ("test", "validation")
    names = automatic if wanted == "auto" else (wanted,)
    for name in names:
        if getattr(splits, name):
            return getattr(splits, name), splits.origin
    raise UserError(
        f"{data.source} has no {' or '.join(names)} split, it has "
        f"{', '.join(_present(splits))}: choose one with --split, or hold images out with "
        f"--data.holdout."
    )


def _present(splits: "Splits") -> list[str]:
    return [name for name in SPLITS if getattr(splits, name)]


def check_classes(preprocess: "Preprocess", split: "ImageSplit") -> None:
    """The model knows the classes of the images, in the same order."""
    known, found = readable(preprocess.class_names), readable(split.class_names)
    if known == found:
        return
    missing = [name for name in found if name not in known]
    extra = [name for name in known if name not in found]
    raise UserError(
        f"The model knows {plural(len(known), 'class')} and {split.name} has "
        f"{plural(len(found), 'class')}, which must be the same in the same order."
        + (f" Unknown to the model: {', '.join(missing[:5])}." if missing else "")
        + (f" Missing in the data: {', '.join(extra[:5])}." if extra else "")
    )
