"""`mixer evaluate --protocol fewshot`: linear probes on a model's features, from a few images of
each class."""

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, value_of, wants_help
from mixerkit.cli.counting import Counting
from mixerkit.cli.images import model_named, own_data, same_images, source_named
from mixerkit.cli.progress import Console
from mixerkit.cli.text import pairs, percent, table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.recipe import Data

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixerkit.data.sources import ImageSplit
    from mixerkit.evaluation.fewshot import FewShot, Protocol
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

EXAMPLES = """\
  mixer evaluate zoo:fashion-demo --protocol fewshot
  mixer evaluate zoo:b16-imagenet21k-google --on pets --protocol fewshot --shots 1 5 10 25
  mixer evaluate runs/photos-64@best --on more-photos --protocol fewshot --shots 5 --json
  mixer evaluate runs/photos-64 --on one-folder --data.holdout 0.2 --protocol fewshot
"""

SWITCHES = ("--json", "--no-cache")


@dataclass(frozen=True)
class Images:
    """The images that probes learn from and are measured on."""

    source: str = ""
    """A named set, a folder or an address, as for training; by default what the model was trained
    on."""
    root: str = ""
    """Folder in which named sets are looked for first."""
    holdout: float = 0.0
    """Images of the training split to measure on where there is no test split: a count, or a share
    below 1. 0 takes those for validation, or what the model's own training held out."""
    split_seed: int = 0
    """Fixes which images are held out."""
    resize: Literal["model", "squash", "shortest", "none"] = "model"
    """How images get the model's size: as its file says, or in another way. The paper's few-shot
    has squash to 256, of which the centre of 224 is taken."""
    resize_to: int = 0
    """Side in pixels before the centre is cut out; 0 is the model's own size."""
    workers: int = 0
    """Threads that decode images; 0 takes one per processor."""
    patience: float = 30.0
    """Seconds without any image read, while one is waited for, before it is given up."""


@dataclass(frozen=True)
class EvaluateFewShot:
    """The paper's few-shot protocol: a linear probe on MODEL's frozen features learns from a few
    training images of each class, and is measured on the test images (those for validation where
    there are none). The images may be of any classes.

    The probe is ridge regression in closed form, as the authors compute it; 5 shots are the paper's
    headline. Features are kept in the user's cache, so that the next probe computes none.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, or a run's checkpoint (RUN@newest, RUN@best,
    RUN@STEP)."""
    protocol: Literal["fewshot"] = "fewshot"
    on: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """The same as --data.source."""
    data: Images = field(default_factory=Images)
    shots: tuple[int, ...] = (1, 5, 10, 25)
    """Images of each class that a probe learns from; a probe for each number."""
    seeds: int = 3
    """Draws of the shots, over which is averaged."""
    ridge: float = 1024.0
    """Strength of the regularisation; the paper's is 1024."""
    batch_size: int = 256
    """Images computed at once."""
    no_cache: Flag = False
    """Neither take features from the cache nor keep any there."""
    json: Flag = False
    """Print JSON on stdout."""


def main(words: list[str]) -> int:
    """Run `mixer evaluate --protocol fewshot` with `words`."""
    if wants_help(words):
        _parsed(words)
    name = model_named(words, SWITCHES, "fewshot")
    from mixerkit.evaluation.fewshot import Protocol

    model = _loaded(name)
    own = own_data(model, unsaid="")
    default = EvaluateFewShot(name, data=_images_named(words, own))
    given = _parsed(words, default)
    if given.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {given.batch_size}.")
    protocol = Protocol(given.shots, given.seeds, given.ridge)
    learn, test, origin = _splits(given.data, own)
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


def _parsed(words: list[str], default: EvaluateFewShot | None = None) -> EvaluateFewShot:
    return parse(EvaluateFewShot, words, command="evaluate", examples=EXAMPLES, default=default)


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


def _images_named(words: list[str], own: Data) -> Images:
    """The images that `words` name, else the model's own."""
    named = source_named(words) or own.source
    if not named:
        raise UserError(
            "Which images? This model does not say which it was trained on: give --on NAME|FOLDER."
        )
    return Images(named, value_of("--data.root", words) or own.root)


def _splits(images: Images, own: Data) -> "tuple[ImageSplit, ImageSplit, str]":
    """What probes learn from, what they are measured on, and where both were found.

    All training images may become shots, so that every model gets the same ones; of images
    without another split, what was held out when the model was trained is held out again.
    """
    from mixerkit.data.sources import hold_out, open_source

    asked = Data(
        source=images.source,
        root=images.root,
        holdout=images.holdout,
        split_seed=images.split_seed,
        workers=images.workers,
        patience=images.patience,
    )
    splits = open_source(asked.source, asked.root)
    alone = splits.test is None and splits.validation is None
    if alone and not asked.holdout and same_images(asked, own):
        asked = own
    splits = hold_out(splits, asked.holdout, asked.split_seed)
    test = splits.test if splits.test is not None else splits.validation
    if not len(splits.train):
        raise UserError(f"{images.source} has no training images, which shots are drawn from.")
    if test is None:
        raise UserError(
            f"{images.source} has training images alone, and a probe is measured on others: hold "
            f"some out, for example a fifth with --data.holdout 0.2."
        )
    return splits.train, test, splits.origin


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
        from mixerkit.evaluation.feature_cache import features_folder, kept_or_computed, key_of

        def compute() -> "Tensor":
            return self._compute(split)

        if self.given.no_cache:
            found, were_kept = compute(), False
        else:
            key = key_of(self.weights, self.preprocess, split)
            found, were_kept = kept_or_computed(features_folder(), key, compute, self.console.say)
        if were_kept:
            self.kept += len(split)
        else:
            self.computed += len(split)
        return found.numpy()

    def _compute(self, split: "ImageSplit") -> "Tensor":
        from mixerkit.data.loader import EvaluationLoader
        from mixerkit.device import memory_told
        from mixerkit.evaluation.features import features_of

        batch_size, data = self.given.batch_size, self.given.data
        loader = EvaluationLoader(
            split,
            self.preprocess,
            batch_size=batch_size,
            workers=data.workers,
            memory=0,  # no image is asked for twice
            patience=data.patience,
        )
        watch = Counting(self.console, f"features of {split.name}", len(split))
        with memory_told(lambda: f"Give a --batch-size below {batch_size}."):
            return features_of(self.model, loader, watch)


def _preprocess(model: "MlpMixer", data: Images) -> "Preprocess":
    """As the model's file says, or resized as `data` says."""
    assert model.preprocess
    if data.resize in ("model", "none") and data.resize_to:
        raise UserError(
            f"--data.resize-to is {data.resize_to}, but --data.resize is '{data.resize}': set it "
            f"to 'squash' or 'shortest', or leave --data.resize-to out."
        )
    if data.resize == "model":
        return model.preprocess
    return replace(model.preprocess, resize=data.resize, resize_to=data.resize_to)


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
    step = about["step"] if "@" in about["model"] else None
    model = about["model"] if step is None else f"{about['model']} (step {step:,})"
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
