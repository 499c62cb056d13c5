"""`mixer evaluate --protocol robustness`: how accuracy falls when images are spoiled."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from mixerkit.cli import robustness_text
from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.broken import broken_among, broken_ones_named
from mixerkit.cli.classes import as_the_model_knows
from mixerkit.cli.counting import Counting
from mixerkit.cli.images import (
    Images,
    choose_split,
    data_named,
    loaded,
    model_named,
    own_data,
    source_named,
)
from mixerkit.cli.progress import Console
from mixerkit.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from mixerkit.data.quarantine import Unreadable
    from mixerkit.data.sources import ImageSplit
    from mixerkit.evaluation.conditions import Condition
    from mixerkit.evaluation.robustness import Chosen
    from mixerkit.model.mixer import MlpMixer

EXAMPLES = """\
  mixer evaluate zoo:fashion-demo --protocol robustness
  mixer evaluate runs/photos-64@best --protocol robustness --split validation --images 0
  mixer evaluate zoo:b16-imagenet1k-google --on imagenet --protocol robustness --out b16.json
  mixer evaluate runs/photos-64 --protocol robustness --kinds blur shuffle --json
"""

SWITCHES = ("--json", "--skip-broken")
Kind = Literal["blur", "noise", "jpeg", "shuffle", "size"]


@dataclass(frozen=True)
class Kept(Images):  # tyro makes one group of options of one dataclass
    """Which images they are, and how they are read. What is not given of the images that the model
    was trained on is as in its training; of others all are taken."""

    memory: float = 2.0
    """GiB of decoded images that may be kept; more of them are decoded for every condition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 0:
            raise UserError(f"--data.memory must not be negative, found {self.memory:g}.")


@dataclass(frozen=True)
class EvaluateRobustness:
    """How the accuracy of MODEL falls when images are blurred, noisy or compressed (five degrees,
    as in ImageNet-C), when patches change places, and when the same weights get larger or smaller
    images. Everything is measured on the same images, clean ones included.

    Severities are those published for the nearest of 32, 64 and 224 pixels (CIFAR-10-C, Tiny
    ImageNet-C, ImageNet-C), the blur scaled with the side.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, or a run's checkpoint (RUN@newest, RUN@best,
    RUN@STEP)."""
    protocol: Literal["robustness"] = "robustness"
    on: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """The images, of the classes that the model knows; by default what it was trained on (same as
    --data.source)."""
    data: Kept = field(default_factory=Kept)
    split: Literal["auto", "test", "validation", "train"] = "auto"
    """The images to measure on; auto is the test split, or validation where there is none, or
    all images of other data that has neither."""
    kinds: tuple[Kind, ...] = ("blur", "noise", "jpeg", "shuffle", "size")
    """What is done to the images."""
    images: int = 2000
    """How many, drawn at random but always the same; 0 takes all."""
    seed: int = 0
    """Fixes which images, the noise, and which patches change places."""
    batch_size: int = 256
    """Images computed at once."""
    skip_broken: Flag = False
    """Leave out those of the images that cannot be used and say which; otherwise any is an error.
    Every image is then read once more."""
    out: Annotated[str, shown_as("PATH")] = ""
    """Write a results file PATH.json, and a figure PATH.png beside it. Nothing is overwritten."""
    json: Flag = False
    """Print JSON on stdout."""


def main(words: list[str]) -> int:
    """Run `mixer evaluate --protocol robustness` with `words`."""
    if not wants_help(words):
        model_named(words, SWITCHES, "robustness")
    given = parse(
        EvaluateRobustness,
        words,
        command="evaluate",
        examples=EXAMPLES,
        options="--protocol robustness",
    )
    _check(given)
    source = source_named(given.on, given.data)
    name = given.model
    model, preprocess = loaded(name)
    asked = _conditions(model, given)
    own = own_data(model)
    images = choose_split(data_named(given.data, source, own), given.split, own)
    split = as_the_model_knows(preprocess, images.split, bool(given.data.classes))
    indices, broken = _drawn(model, given, split)
    chosen = _chosen(model, given, split, indices)
    content = {
        "model": name,
        "step": model.about.get("step"),
        "protocol": "robustness",
        "data": split.name,
        "origin": images.origin,
        "split_images": len(split),
        "images": len(chosen),
        "seed": given.seed,
        "patch_size": list(model.config.patch_hw),
        "patches": model.config.num_patches,
        "unreadable": [one.row() for one in broken],
        "rows": _measure(model, given, chosen, asked),
    }
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(robustness_text.as_text(content))
    if given.out:
        _write(given, words, content, len(split.class_names))
    return EXIT_DONE


def _check(given: EvaluateRobustness) -> None:
    """What can be refused before anything is measured."""
    if given.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {given.batch_size}.")
    if given.images < 0:
        raise UserError(f"--images must be at least 1, or 0 for all, found {given.images}.")
    if not given.kinds:
        raise UserError("--kinds needs at least one: blur, noise, jpeg, shuffle or size.")
    out = Path(given.out)
    if given.out and (out.suffix != ".json" or out.is_dir()):
        raise UserError(
            f"--out must be a file that ends in .json, found {given.out}; the figure gets the same "
            f"name with .png."
        )
    from mixerkit.checkpoint.files import check_new

    for path in (out, _picture(out)) if given.out else ():
        check_new(path)


def _picture(out: Path) -> Path:
    """The figure beside a results file."""
    return out.with_suffix(".png")


def _conditions(model: "MlpMixer", given: EvaluateRobustness) -> "list[Condition]":
    """What is measured; refused before anything is where the model allows none of it."""
    from mixerkit.evaluation.conditions import at_size, conditions

    asked = conditions(model.config, given.kinds)
    for condition in asked:
        at_size(model, condition)
    return asked


def _drawn(
    model: "MlpMixer", given: EvaluateRobustness, split: "ImageSplit"
) -> "tuple[np.ndarray, list[Unreadable]]":
    """Which images of the split are measured; and, with --skip-broken, those that were drawn and
    cannot be used."""
    from mixerkit.data.quarantine import none_usable
    from mixerkit.evaluation.robustness import drawn

    assert model.preprocess
    indices = drawn(len(split), given.images, given.seed)
    if not given.skip_broken:
        return indices, []
    broken = broken_among(split, model.preprocess, given.data, indices)
    if len(broken) == len(indices):
        raise none_usable(split.subset(indices), broken)
    return np.setdiff1d(indices, [one.index for one in broken]), broken


def _chosen(
    model: "MlpMixer", given: EvaluateRobustness, split: "ImageSplit", indices: np.ndarray
) -> "Chosen":
    from mixerkit.data.pixels import Reading
    from mixerkit.evaluation.robustness import Chosen

    assert model.preprocess
    return Chosen(
        split,
        model.preprocess,
        indices,
        seed=given.seed,
        memory=given.data.memory,
        reading=Reading(given.data.workers, given.data.patience),
    )


def _measure(
    model: "MlpMixer", given: EvaluateRobustness, chosen: "Chosen", asked: "list[Condition]"
) -> list[dict[str, Any]]:
    """A row for each condition, while a person watches."""
    from mixerkit.cli.measuring import fewer_than
    from mixerkit.device import device_here, memory_told
    from mixerkit.evaluation.robustness import measure_under

    total = len(asked) * len(chosen)
    watch = Counting(Console(sys.stderr), f"images under {len(asked)} conditions", total)
    assert model.preprocess
    with (
        memory_told(lambda: fewer_than(given.batch_size)),
        broken_ones_named(chosen.split, model.preprocess, given.data),
    ):
        rows = measure_under(
            model.to(device_here()), chosen, asked, batch_size=given.batch_size, watch=watch
        )
        return list(rows)


def _write(
    given: EvaluateRobustness, words: list[str], content: dict[str, Any], classes: int
) -> None:
    """The figure, then the results file."""
    from mixerkit.checkpoint.files import write_atomic
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw
    from mixerkit.insight.robustness_figure import figure
    from mixerkit.results import write_results

    path = Path(given.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path]
    if can_draw():
        picture = _picture(path)
        title = f"{content['model']} on {content['data']}, {content['images']:,} images"
        write_atomic(picture, figure(content["rows"], title, classes))
        written.append(picture)
    else:
        print(f"note: there is no figure: {HOW_TO_DRAW}", file=sys.stderr)
    write_results(
        path,
        name="robustness",
        command=shlex.join(["mixer", "evaluate", *words]),
        settings={name: value for name, value in content.items() if name not in ("rows", "origin")},
        rows=content["rows"],
    )
    console = sys.stderr if given.json else sys.stdout
    print(f"written: {', '.join(str(file) for file in written)}", file=console)
