"""`mixer evaluate --protocol fewshot`: linear probes on a model's features, from a few images of
each class."""

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.counting import Counting
from mixerkit.cli.images import (
    Images,
    data_named,
    model_named,
    own_data,
    same_images,
    source_named,
)
from mixerkit.cli.progress import Console
from mixerkit.cli.text import model_title, pairs, percent, table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.recipe import Data

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixerkit.data.sources import ImageSplit, Splits
    from mixerkit.evaluation.fewshot import FewShot, Protocol
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

EXAMPLES = """\
  mixer evaluate zoo:fashion-demo --protocol fewshot
  mixer evaluate zoo:b16-imagenet21k-google --on pets --protocol fewshot --shots 1,5,10,25
  mixer evaluate runs/photos-64@best --on more-photos --protocol fewshot --shots 5 --json
  mixer evaluate runs/photos-64 --on one-folder --data.holdout 0.2 --protocol fewshot
"""

SWITCHES = ("--json", "--no-cache")


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
    shots: tuple[int, ...] = (1, 5, 10, 25)
    """Images of each class that a probe learns from; a probe for each number."""
    seeds: int = 3
    """Draws of the shots, over which is averaged."""
    ridge: float = 1024.0
    """Strength of the regularisation; the paper's is 1024."""
    batch_size: int = 0
    """Images computed at once; 0 finds a size that suits the memory."""
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
    from mixerkit.evaluation.fewshot import Protocol

    name, protocol = given.model, Protocol(given.shots, given.seeds, given.ridge)
    model = _loaded(name)
    learn, test, origin = _splits(given.data, source, own_data(model))
    features = Features(model, given)
    found = _measure(protocol, learn, test, features)
    about = {"model": name, "step": model.about.get("step"), "protocol": "fewshot"}
    about |= {"shots_from": learn.name, "data": test.name, "origin": origin, "ridge": given.ridge}
    if given.json:
        counts = {"features_computed": features.computed, "features_from_cache": features.kept}
        print(json.dumps(about | asdict(found) | counts, indent=2, ensure_ascii=False))
    else:
        print(_as_text(about, found, features))
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
    if set(data.classes) <= set(splits.train.class_names):
        return of_classes(splits, data.classes) if data.classes else splits
    return None


class Features:
    """A model's features of splits, from the user's cache or computed now; `kept` and `computed`
    count the images."""

    def __init__(self, model: "MlpMixer", given: EvaluateFewShot) -> None:
        from mixerkit.device import device_here
        from mixerkit.evaluation.feature_cache import checksum_of

        self.model, self.given, self.console = model.to(device_here()), given, Console(sys.stderr)
        self.preprocess = _preprocess(model, given.data)
        self.weights = "" if given.no_cache else checksum_of(model)
        self.kept = self.computed = 0

    def of(self, split: "ImageSplit") -> "np.ndarray":
        """float32 [N, C] of all images of a split."""
        from mixerkit.evaluation.feature_cache import (
            features_folder,
            kept_or_computed,
            key_of,
            names_of,
        )

        if self.given.no_cache:
            found, kept = self._computed(split), 0
        else:
            found, kept = kept_or_computed(
                features_folder(),
                key_of(self.weights, self.preprocess, split.name),
                names_of(split),
                lambda missing: self._computed(split.subset(missing)),
                self.console.say,
            )
        self.kept += kept
        self.computed += len(split) - kept
        return found.numpy()

    def _computed(self, split: "ImageSplit") -> "Tensor":
        from mixerkit.cli.measuring import in_batches
        from mixerkit.data.loader import EvaluationLoader
        from mixerkit.evaluation.features import features_of

        watch = Counting(self.console, f"features of {split.name}", len(split))

        def attempt(batch_size: int) -> "Tensor":
            loader = EvaluationLoader(
                split,
                self.preprocess,
                batch_size=batch_size,
                workers=self.given.data.workers,
                memory=0.0,  # no image is asked for twice
                patience=self.given.data.patience,
            )
            return features_of(self.model, loader, watch)

        return in_batches(self.model, self.given.batch_size, attempt)


def _preprocess(model: "MlpMixer", images: Resized) -> "Preprocess":
    """As the model's file says, or resized as `images` says."""
    assert model.preprocess
    if images.resize == "model":
        return model.preprocess
    return replace(model.preprocess, resize=images.resize, resize_to=images.resize_to)


def _measure(
    protocol: "Protocol", learn: "ImageSplit", test: "ImageSplit", features: Features
) -> "FewShot":
    """Draw the shots, look at no other image of that split, and fit all probes."""
    from mixerkit.evaluation.fewshot import draw, measure

    drawn = draw(learn.labels, learn.class_names, protocol)
    shots_PC = features.of(learn.subset(drawn.images))
    images_MC = features.of(test)
    count = len(protocol.shots) * protocol.seeds
    watch = Counting(features.console, "probes", count)
    return measure(protocol, drawn, shots_PC, images_MC, test.labels, watch)


def _as_text(about: dict[str, Any], found: "FewShot", features: Features) -> str:
    model = model_title(about["model"], about["step"])
    sources = [("from the cache", features.kept), ("computed now", features.computed)]
    figures = [
        ("images measured", f"{found.samples:,}"),
        ("shots from", about["shots_from"]),
        ("classes", f"{found.classes:,}"),
        ("chance", percent(found.chance)),
        ("features", ", ".join(f"{count:,} {how}" for how, count in sources if count)),
    ]
    parts = [
        f"{model}: few-shot on {about['data']}\n{about['origin']}",
        pairs(figures),
        table(_rows(found)),
        "±: half of the 95 % interval over the draws of the shots, by Student's t. The paper's "
        "headline is 5 shots.",
    ]
    return "\n\n".join(parts)


def _rows(found: "FewShot") -> list[tuple[str, ...]]:
    """For each number of shots the mean, its interval, and what each seed gave."""
    seeds = sorted({probe.seed for probe in found.probes})
    rows: list[tuple[str, ...]] = [("shots", "mean", "±", *(f"seed {seed}" for seed in seeds))]
    for one in found.averages:
        half = "–" if one.half_width is None else percent(one.half_width)
        each = [percent(p.accuracy) for p in found.probes if p.shots == one.shots]
        rows.append((str(one.shots), percent(one.mean), half, *each))
    return rows
