"""`mixer evaluate --protocol fewshot`: linear probes on a model's features, from a few images of
each class."""

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.broken import broken_among, without
from mixerkit.cli.counting import Counting
from mixerkit.cli.fewshot_features import Features
from mixerkit.cli.fewshot_text import as_text
from mixerkit.cli.images import (
    Images,
    data_named,
    model_named,
    own_data,
    same_images,
    source_named,
)
from mixerkit.cli.protocols import beginning_with
from mixerkit.cli.text import plural
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.choices import classes_named
from mixerkit.spec.recipe import Data

if TYPE_CHECKING:
    from mixerkit.data.quarantine import Unreadable
    from mixerkit.data.sources import ImageSplit, Splits
    from mixerkit.evaluation.fewshot import Drawn, FewShot, Protocol
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

EXAMPLES = """\
  mixer evaluate zoo:fashion-demo --protocol fewshot
  mixer evaluate zoo:b16-imagenet21k-google --on pets --protocol fewshot --shots 1,5,10,25
  mixer evaluate runs/photos-64@best --on more-photos --protocol fewshot --shots 5 --json
  mixer evaluate runs/photos-64 --on one-folder --data.holdout 0.2 --protocol fewshot
"""

SWITCHES = ("--json", "--no-cache", "--skip-broken")


@dataclass(frozen=True)
class Resized(Images):  # tyro makes one group of options of one dataclass
    """The images that probes learn from and are measured on: of any classes. Those of the test
    split are measured, or for validation where there is none; all training images may become shots,
    but for those that are held out. Of a model's own images without another split these are what
    its training held out."""

    resize: Literal["model", "squash", "shortest", "none"] = "model"
    """How images get the model's size: as its file says, or in another way. The paper's few-shot
    has squash to 256, of which the centre of 224 is taken."""
    resize_to: int = 0
    """Side in pixels before the centre is cut out; 0 is the model's own size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize in ("model", "none") and self.resize_to:
            raise UserError(
                f"--data.resize-to is {self.resize_to}, but --data.resize is '{self.resize}': set "
                f"it to 'squash' or 'shortest', or leave --data.resize-to out."
            )


@dataclass(frozen=True)
class EvaluateFewShot:
    """The paper's few-shot protocol: a linear probe on MODEL's frozen features learns from a few
    training images of each class, and is measured on the test images (those for validation where
    there are none). The images may be of any classes.

    The probe is ridge regression in closed form, as the authors compute it; 5 shots are the paper's
    headline. Features are kept in the user's cache: the next probe looks at other images alone.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, or a run's checkpoint (RUN@newest, RUN@best,
    RUN@STEP)."""
    protocol: Literal["fewshot"] = "fewshot"
    on: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """The same as --data.source."""
    data: Resized = field(default_factory=Resized)
    shots: Annotated[tuple[int, ...] | None, shown_as("INT [INT ...]")] = None
    """Images of each class that a probe learns from; a probe for each number. If not given, those
    of the paper's 1 5 10 25 that every class has images for."""
    seeds: int = 3
    """Draws of the shots, over which is averaged."""
    ridge: float = 1024.0
    """Strength of the regularisation; the paper's is 1024."""
    batch_size: int = 0
    """Images computed at once; 0 finds a size that suits the memory."""
    skip_broken: Flag = False
    """Leave out images that cannot be used and say which, and draw other shots in their place;
    otherwise any is an error. Every image is then read once more."""
    no_cache: Flag = False
    """Neither take features from the cache nor keep any there."""
    json: Flag = False
    """Print JSON on stdout."""

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise UserError(
                f"--batch-size must be at least 1, or 0 to find one, found {self.batch_size}."
            )


def main(words: list[str]) -> int:
    """Run `mixer evaluate --protocol fewshot` with `words`."""
    if not wants_help(words):
        model_named(words, SWITCHES, "fewshot")
    given = parse(
        EvaluateFewShot, words, command="evaluate", examples=EXAMPLES, options="--protocol fewshot"
    )
    source = source_named(given.on, given.data)
    from mixerkit.evaluation.fewshot import PAPER_SHOTS, Protocol

    with beginning_with(shots="--shots", seeds="--seeds", ridge="--ridge"):
        Protocol(given.shots if given.shots is not None else PAPER_SHOTS, given.seeds, given.ridge)
    model = _loaded(given.model)
    learn, test, origin = _splits(given.data, source, own_data(model))
    preprocess = _preprocess(model, given.data)
    shots = _draw(given, learn, preprocess)
    missing = _say_left_out(shots.protocol.shots, shots.learn) if given.shots is None else []
    broken = _broken(given, test, preprocess, np.arange(len(test)))
    test, unreadable = without(test, broken), [one.row() for one in shots.unreadable + broken]
    features = Features(model, preprocess, given.data, given.batch_size, not given.no_cache)
    found = _measure(shots, test, features)
    about = {
        "model": given.model,
        "step": model.about.get("step"),
        "protocol": "fewshot",
        "shots_from": learn.name,
        "data": test.name,
        "origin": origin,
        "ridge": given.ridge,
        "shots_left_out": missing,
        "looked_at": len(shots.drawn.images) + len(test) + len(unreadable),
        "unreadable": unreadable,
    }
    if given.json:
        counts = {"features_computed": features.computed, "features_from_cache": features.kept}
        print(json.dumps(about | asdict(found) | counts, indent=2, ensure_ascii=False))
    else:
        print(as_text(about, found, features.kept, features.computed))
    return EXIT_DONE


def _loaded(name: str) -> "MlpMixer":
    """The model, which must say how its images are prepared; its classes make no difference."""
    from mixerkit.checkpoint.load import load

    model = load(name)
    if model.preprocess is None:
        raise UserError(
            f"{model.source}: this model does not say how images are prepared for it. Give a run "
            f"folder, a model folder or zoo:NAME."
        )
    return model


def _splits(images: Images, source: str, own: Data) -> "tuple[ImageSplit, ImageSplit, str]":
    """What probes learn from, what they are measured on, and where both were found.

    All training images may become shots, so that every model gets the same ones; of images
    without another split, what was held out when the model was trained is held out again.
    """
    from mixerkit.data.sources import opened

    data = data_named(images, source, own)
    splits = opened(replace(data, holdout=images.holdout, join_validation=False))
    if not (splits.test or splits.validation) and same_images(data, own):
        splits = _as_in_training(data, own) or splits
    test = splits.test or splits.validation
    if not len(splits.train):
        raise UserError(f"{data.source} has no training images, which shots are drawn from.")
    if not test:
        raise UserError(
            f"{data.source} has training images alone, and a probe is measured on others: hold "
            f"some out, for example a fifth with --data.holdout 0.2."
        )
    return splits.train, test, splits.origin


def _as_in_training(data: Data, own: Data) -> "Splits | None":
    """A model's own images divided as in its training, and of these the classes of `data`; None
    where it has not seen them all. Which images are held out depends on the classes."""
    from mixerkit.data.sources import opened
    from mixerkit.data.splits import of_classes

    splits = opened(own)
    known = splits.train.class_names
    if set(classes_named(data.classes, known)) <= set(known):
        return of_classes(splits, data.classes) if data.classes else splits
    return None


def _preprocess(model: "MlpMixer", images: Resized) -> "Preprocess":
    """As the model's file says, or resized as `images` says."""
    assert model.preprocess
    if images.resize == "model":
        return model.preprocess
    with beginning_with(resize_to="--data.resize-to"):
        return replace(model.preprocess, resize=images.resize, resize_to=images.resize_to)


@dataclass(frozen=True)
class _Drawn:
    """What probes learn from: images drawn from `learn`, for as many shots as `protocol` says."""

    protocol: "Protocol"
    learn: "ImageSplit"
    drawn: "Drawn"
    unreadable: "list[Unreadable]"


def _draw(given: EvaluateFewShot, learn: "ImageSplit", preprocess: "Preprocess") -> _Drawn:
    """Draw the shots. With --skip-broken they are drawn again without those that cannot be used,
    until all can: of all other training images none is looked at."""
    from mixerkit.evaluation.fewshot import draw

    broken: list[Unreadable] = []
    while True:
        usable = without(learn, broken)
        protocol = _protocol(given, usable)
        drawn = draw(usable.labels, usable.class_names, protocol)
        found = _broken(given, usable, preprocess, drawn.images)
        if not found:
            return _Drawn(protocol, usable, drawn, broken)
        left = np.setdiff1d(np.arange(len(learn)), [one.index for one in broken])
        broken += [replace(one, index=int(left[one.index])) for one in found]


def _protocol(given: EvaluateFewShot, learn: "ImageSplit") -> "Protocol":
    """As given; of the paper's numbers of shots, those for which there are images."""
    from mixerkit.evaluation.fewshot import PAPER_SHOTS, Protocol, that_fit

    shots = given.shots
    if shots is None:
        shots = that_fit(PAPER_SHOTS, learn.labels, len(learn.class_names))
    return Protocol(shots, given.seeds, given.ridge)


def _broken(
    given: EvaluateFewShot, split: "ImageSplit", preprocess: "Preprocess", indices: np.ndarray
) -> "list[Unreadable]":
    return broken_among(split, preprocess, given.data, indices) if given.skip_broken else []


def _measure(shots: _Drawn, test: "ImageSplit", features: Features) -> "FewShot":
    """Look at no other image of that split, and fit all probes."""
    from mixerkit.evaluation.fewshot import measure

    protocol, drawn = shots.protocol, shots.drawn
    shots_PC = features.of(shots.learn.subset(drawn.images))
    images_MC = features.of(test)
    count = len(protocol.shots) * protocol.seeds
    watch = Counting(features.console, "probes", count)
    return measure(protocol, drawn, shots_PC, images_MC, test.labels, watch)


def _say_left_out(shots: tuple[int, ...], learn: "ImageSplit") -> list[int]:
    """Name those of the paper's numbers of shots that are not measured."""
    from mixerkit.evaluation.fewshot import PAPER_SHOTS

    missing = [count for count in PAPER_SHOTS if count not in shots]
    if missing:
        fewest = int(np.bincount(learn.labels, minlength=len(learn.class_names)).min())
        print(
            f"note: without {' and '.join(map(str, missing))} shots: the smallest class of "
            f"{learn.name} has {plural(fewest, 'image')}.",
            file=sys.stderr,
        )
    return missing
