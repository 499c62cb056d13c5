"""`mixer evaluate`: how good a saved model is on labelled images."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import (
    Flag,
    Word,
    leading_word,
    parse,
    shown_as,
    value_of,
    wants_help,
)
from mixerkit.cli.running import located
from mixerkit.cli.text import percent, plural, table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.imagenet import readable
from mixerkit.spec.recipe import Data
from mixerkit.spec.strict import from_dict

if TYPE_CHECKING:
    from mixerkit.data.quarantine import Unreadable
    from mixerkit.data.sources import ImageSplit, Splits
    from mixerkit.evaluation.accuracy import Accuracy
    from mixerkit.model.mixer import MlpMixer

EXAMPLES = """\
  mixer evaluate runs/fashion-demo
  mixer evaluate zoo:fashion-demo --json
  mixer evaluate runs/photos-64 --data.source more-photos
  mixer evaluate runs/photos-64@best
  mixer evaluate runs/photos-64 --protocol fewshot
"""

SWITCHES = ("--json", "--skip-broken")
MOST_CONFUSED = 5
LEFT_OUT_SHOWN = 5
SPLITS = ("test", "validation", "train")


@dataclass(frozen=True)
class Evaluate:
    """Measure MODEL on the data that it was trained for, or on other data with the same classes.

    Images are prepared as the model's own file says, whatever the data's settings.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, or a run's checkpoint (RUN@newest, RUN@best,
    RUN@STEP)."""
    data: Data = field(default_factory=Data)
    split: Literal["auto", "test", "validation", "train"] = "auto"
    """The images to measure on; auto is the test split, or validation where there is none, or
    all images of other data that has neither."""
    batch_size: int = 256
    """Images computed at once."""
    skip_broken: Flag = False
    """Leave out images that cannot be used and say which; otherwise the first one is an error,
    whatever data.max_unreadable."""
    json: Flag = False
    """Print JSON, with the confusion matrix."""


def main(words: list[str]) -> int:
    """Run `mixer evaluate` with `words`."""
    protocol = value_of("--protocol", words)
    if protocol == "fewshot":
        from mixerkit.cli import fewshot

        return fewshot.main(words)
    if protocol == "avg5":
        from mixerkit.cli import avg5

        return avg5.main(words)
    name = leading_word(words, SWITCHES)
    if wants_help(words):
        parse(Evaluate, words, command="evaluate", examples=EXAMPLES)
    if not name:
        raise UserError(
            "Which model? It comes first: `mixer evaluate MODEL [options]`, where MODEL is a run "
            "folder, RUN@best or zoo:fashion-demo."
        )
    from mixerkit.checkpoint.load import load

    model = load(name)
    if model.preprocess is None or not model.preprocess.class_names:
        raise UserError(
            f"{model.source}: this model does not say which classes it knows. Give a run folder, "
            f"a model folder or zoo:NAME."
        )
    own = _own_data(model)
    default = Evaluate(name, _data_named(words, own))
    given = parse(Evaluate, words, command="evaluate", examples=EXAMPLES, default=default)
    split, origin = _choose_split(given, foreign=not _same_images(given.data, own))
    accuracy, unreadable = _measure(model, given, split)
    if given.json:
        which = {"model": name, "step": model.about.get("step")}
        content = which | {"data": split.name, "origin": origin} | asdict(accuracy)
        content["unreadable"] = [one.row() for one in unreadable]
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(_as_text(_title(model, name), split, origin, accuracy, unreadable))
    return EXIT_DONE


def _title(model: "MlpMixer", name: str) -> str:
    """The model's name, and the step that a name such as RUN@best stands for."""
    step = model.about.get("step") if "@" in name else None
    return f"{name} (step {step:,})" if step is not None else name


def _own_data(model: "MlpMixer") -> Data:
    """The data that the model's file says it was trained on."""
    about: dict[str, Any] = dict(model.about)
    return from_dict(Data, about["data"]) if "data" in about else Data()


def _data_named(words: list[str], own: Data) -> Data:
    """The data that `words` name, else `own`. What training held out of its own data says nothing
    about other data, which is taken whole."""
    source, root = value_of("--data.source", words), value_of("--data.root", words)
    named = replace(own, source=source or own.source, root=root or own.root)
    return own if _same_images(named, own) else replace(named, holdout=0.0, split_seed=0)


def _same_images(one: Data, other: Data) -> bool:
    first, second = located(one), located(other)
    return (first.source, first.root) == (second.source, second.root)


def _choose_split(given: Evaluate, foreign: bool) -> "tuple[ImageSplit, str]":
    from mixerkit.data.sources import hold_out, open_source

    splits = open_source(given.data.source, given.data.root)
    splits = hold_out(splits, given.data.holdout, given.data.split_seed)
    automatic = SPLITS if foreign else ("test", "validation")  # nobody trained on `foreign` images
    wanted = automatic if given.split == "auto" else (given.split,)
    for name in wanted:
        if getattr(splits, name) is not None:
            return getattr(splits, name), splits.origin
    raise UserError(
        f"{given.data.source} has no {' or '.join(wanted)} split, it has "
        f"{', '.join(_present(splits))}: choose one with --split, or hold images out with "
        f"--data.holdout."
    )


def _present(splits: "Splits") -> list[str]:
    return [name for name in SPLITS if getattr(splits, name) is not None]


def _measure(
    model: "MlpMixer", given: Evaluate, split: "ImageSplit"
) -> "tuple[Accuracy, list[Unreadable]]":
    """The accuracy on the images that can be used, and the others."""
    from mixerkit.data.decode import BrokenImage
    from mixerkit.data.loader import EvaluationLoader
    from mixerkit.device import device_here, memory_told
    from mixerkit.evaluation.accuracy import evaluate

    if given.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {given.batch_size}.")
    assert model.preprocess
    names = readable(split.class_names)
    _check_classes(readable(model.preprocess.class_names), names, split.name)
    loader = EvaluationLoader(
        split,
        model.preprocess,
        batch_size=given.batch_size,
        workers=given.data.workers,
        memory=given.data.memory,
        patience=given.data.patience,
        skip_broken=given.skip_broken,
    )
    try:
        with memory_told(lambda: f"Give a --batch-size below {given.batch_size}."):
            accuracy = evaluate(model.to(device_here()), loader, names)
    except BrokenImage as error:
        raise UserError(
            f"{error} Or give --skip-broken: it measures the others, and says which were left out."
        ) from error
    return accuracy, loader.unreadable


def _check_classes(known: tuple[str, ...], found: tuple[str, ...], data: str) -> None:
    if known == found:
        return
    missing = [name for name in found if name not in known]
    extra = [name for name in known if name not in found]
    raise UserError(
        f"The model knows {plural(len(known), 'class')} and {data} has "
        f"{plural(len(found), 'class')}, which must be the same in the same order."
        + (f" Unknown to the model: {', '.join(missing[:5])}." if missing else "")
        + (f" Missing in the data: {', '.join(extra[:5])}." if extra else "")
    )


def _as_text(
    name: str,
    split: "ImageSplit",
    origin: str,
    accuracy: "Accuracy",
    unreadable: "list[Unreadable]",
) -> str:
    figures = [
        ("images", f"{accuracy.samples:,}"),
        ("top-1", percent(accuracy.top1)),
        ("top-5", percent(accuracy.top5)),
        ("negative log-likelihood", f"{accuracy.nll:.4f}"),
        ("calibration error", percent(accuracy.ece)),
    ]
    classes = [("class", "images", "recall", "precision")]
    classes += [
        (c.name, f"{c.samples:,}", _share(c.recall), _share(c.precision))
        for c in accuracy.per_class
    ]
    parts = [f"{name} on {split.name}\n{origin}", table(figures), table(classes)]
    confused = _most_confused(accuracy)
    if confused:
        parts.append("Most often confused\n" + table(confused, left=2))
    if unreadable:
        parts.append(_left_out(unreadable, len(split)))
    return "\n\n".join(parts)


def _left_out(unreadable: "list[Unreadable]", total: int) -> str:
    """How many images were left out; the first few by name."""
    rows = [one.row() for one in unreadable[:LEFT_OUT_SHOWN]]
    lines = [f"  {row['file']}: {row['reason']}" for row in rows]
    more = ["  …"] if len(unreadable) > LEFT_OUT_SHOWN else []
    title = f"Left out: {len(unreadable):,} of {plural(total, 'image')} cannot be used"
    return "\n".join([title, *lines, *more])


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _most_confused(accuracy: "Accuracy") -> list[tuple[str, str, str]]:
    """(true class, "taken for …", how often), the most frequent first."""
    names = [c.name for c in accuracy.per_class]
    counts = [
        (count, i, j)
        for i, row in enumerate(accuracy.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    counts.sort(key=lambda item: (-item[0], item[1:]))
    return [
        (names[i], f"taken for {names[j]}", f"{count:,} ×")
        for count, i, j in counts[:MOST_CONFUSED]
    ]
