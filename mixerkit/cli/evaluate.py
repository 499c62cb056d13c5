"""`mixer evaluate`: how good a saved model is on labelled images."""

import json
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit import launch
from mixerkit.cli import evaluation_text
from mixerkit.cli.arguments import Flag, Word, parse, shown_as, value_of, wants_help
from mixerkit.cli.broken import broken_ones_named
from mixerkit.cli.classes import as_the_model_knows
from mixerkit.cli.images import (
    Images,
    Selected,
    choose_split,
    data_named,
    measurable,
    model_named,
    own_data,
    refuse_empty_lists,
    source_named,
)
from mixerkit.cli.protocols import ARGUMENTS, TOP_1, named_as_options, refuse_others
from mixerkit.cli.text import model_title
from mixerkit.errors import EXIT_DONE, UserError, unknown
from mixerkit.spec.imagenet import readable
from mixerkit.spec.zoo import published

if TYPE_CHECKING:
    from mixerkit.cli.measuring import Measured
    from mixerkit.data.sources import ImageSplit
    from mixerkit.inference.module import ExportedModel
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess
    from mixerkit.training.world import World

EXAMPLES = """\
  mixer evaluate runs/fashion-demo
  mixer evaluate zoo:b16-imagenet1k-google --on imagenet-real --data.root /data
  mixer evaluate runs/photos-64@best --on more-photos --json
  mixer evaluate photos.onnx --on more-photos              # as deployed (mixer export)
  mixer evaluate zoo:l16-imagenet1k-google --on imagenet --crop resize-crop
  torchrun --nproc-per-node 4 -m mixerkit evaluate zoo:l16-imagenet1k-google --on imagenet
  mixer evaluate runs/photos-64 --on more-photos --protocol fewshot       # see its own --help
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data
"""

SWITCHES = ("--json", "--skip-broken")
IMAGENET = "imagenet"
REAL = "imagenet-real"
SHORT_SIDE = 256 / 224
"""The side that images are scaled to over the side of the crop, in both of the paper's rules."""
CROPS = {"resize-crop": "squash", "resmall-crop": "shortest"}


@dataclass(frozen=True)
class Evaluate:
    """Measure MODEL on the data that it was trained for, or on other data with the same classes.

    Images are prepared as the model's own file says. Under torchrun each process measures its
    share. Intervals are 95 %, by the bootstrap over images, or by Wilson's score where all answers
    are right, or none is."""

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, a run's checkpoint (RUN@newest, RUN@best, RUN@STEP),
    or an exported model (.onnx or .xml), which its runtime computes."""
    on: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """The images: a named set, or a folder with one sub-folder per class; by default what the model
    was trained on (same as --data.source). imagenet-real: ImageNet's validation images with the
    cleaned-up ReaL labels, too."""
    protocol: Literal["top1", "fewshot", "avg5", "robustness"] = "top1"
    """What is measured; each other protocol has a --help of its own."""
    data: Images = field(default_factory=Images)
    split: Literal["auto", "test", "validation", "train"] = "auto"
    """The images to measure on; auto is the test split, or validation where there is none, or
    all images of other data that has neither."""
    crop: Literal["own", "resize-crop", "resmall-crop"] = "own"
    """How images get the model's size: as its file says, or by one of the paper's rules. Both sides
    (resize-crop, its table 2) or the short side (resmall-crop, table 3) are scaled to 8/7 of it,
    256 for 224 pixels, and the centre is taken."""
    batch_size: int = 0
    """Images computed at once; 0 finds a size that suits the memory."""
    skip_broken: Flag = False
    """Leave out images that cannot be used and say which; otherwise any is an error."""
    json: Flag = False
    """Print JSON, with the confusion matrix and every class."""

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise UserError(
                f"--batch-size must be at least 1, or 0 to find one, found {self.batch_size}."
            )


def main(words: list[str]) -> int:
    """Run `mixer evaluate` with `words`."""
    if launch.processes() == 1 or wants_help(words):
        protocol = _protocol(words)
        with named_as_options(protocol):
            if protocol != TOP_1:
                found: int = import_module(f"mixerkit.cli.{protocol}").main(words)
                return found
            given = _parsed(words)
            from mixerkit.training.world import World

            return _evaluate(given, World())
    from mixerkit.training.distributed import joined

    with named_as_options(TOP_1), joined() as world, world.speaking_once():
        return _evaluate(world.after_first(lambda: _parsed(words)), world)


def _protocol(words: list[str]) -> str:
    """What is to be measured, which several processes do for top-1 alone."""
    protocol = value_of("--protocol", words) or TOP_1
    if protocol not in ARGUMENTS:
        raise unknown("protocol", protocol, ARGUMENTS)
    if protocol != TOP_1 and launch.processes() > 1:
        raise UserError(
            f"--protocol {protocol} is for one process: start it without torchrun"
            f"{', several times for several devices.' if protocol == 'avg5' else '.'}"
        )
    if not wants_help(words):
        refuse_others(words, protocol)
        refuse_empty_lists(words)
    return protocol


def _parsed(words: list[str]) -> Evaluate:
    """What `words` say, before anything is loaded or fetched."""
    _protocol(words)
    if not wants_help(words):
        model_named(words, SWITCHES)
    given = parse(Evaluate, words, command="evaluate", examples=EXAMPLES)
    source_named(given.on, given.data)
    return given


@dataclass(frozen=True)
class _Task:
    """The model, the images, how they are prepared for it, and the ReaL labels of each if asked
    for."""

    model: "MlpMixer | ExportedModel"
    source: str
    images: Selected
    preprocess: "Preprocess"
    real: "tuple[frozenset[int], ...] | None"


def _evaluate(given: Evaluate, world: "World") -> int:
    task = world.after_first(lambda: _task(given))
    found = _measure(task, given, world)
    content = None
    with world.agreed():  # the others hear whether the first one can make something of it
        if found:
            content = _figures(task, given, found)
    if content and given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    elif content:
        print(evaluation_text.as_text(content, model_title(given.model, content["step"])))
    return EXIT_DONE


def _task(given: Evaluate) -> _Task:
    """What cannot be measured is refused here, before any time is spent."""
    model, own_way = measurable(given.model)
    own, source = own_data(model), source_named(given.on, given.data)
    data = data_named(given.data, IMAGENET if source == REAL else source, own)
    images = choose_split(data, given.split, own)
    split = as_the_model_knows(own_way, images.split, bool(given.data.classes))
    images = replace(images, split=split)
    real = _real_labels(images.split) if source == REAL else None
    return _Task(model, data.source, images, _cropped(own_way, given.crop), real)


def _real_labels(split: "ImageSplit") -> "tuple[frozenset[int], ...]":
    from mixerkit.data.real import real_file, real_labels

    return real_labels(split, real_file(split))


def _cropped(prepared: "Preprocess", crop: str) -> "Preprocess":
    """How images are prepared: the model's own way, or by one of the paper's rules."""
    if crop == "own":
        return prepared
    resize: Any = CROPS[crop]
    return replace(prepared, resize=resize, resize_to=round(SHORT_SIDE * max(prepared.image_hw)))


def _measure(task: _Task, given: Evaluate, world: "World") -> "Measured | None":
    """The model's way over the images that can be used; None for all processes but the first."""
    from mixerkit.cli.measuring import measured

    with broken_ones_named(task.images.split, task.preprocess, given.data):
        return measured(
            task.model,
            task.images.split,
            task.preprocess,
            given.data,
            given.batch_size,
            given.skip_broken,
            world,
        )


def _figures(task: _Task, given: Evaluate, found: "Measured") -> dict[str, Any]:
    """Everything that is told, as JSON has it."""
    from mixerkit.evaluation.accuracy import measure, right
    from mixerkit.evaluation.interval import interval_of_share
    from mixerkit.evaluation.real import measure_real

    p_NK, labels_N = found.passes.probabilities, found.passes.labels
    split = task.images.split
    accuracy = measure(p_NK, labels_N, readable(split.class_names))
    interval, by = interval_of_share(right(p_NK, labels_N))
    content: dict[str, Any] = {
        "model": given.model,
        "step": task.model.about.get("step"),
        "data": split.name,
        "split": task.images.name,
        "origin": task.images.origin,
        "crop": given.crop,
        **asdict(accuracy),
        "top1_interval": interval,
        "top1_interval_by": by,
    }
    if task.real is not None:
        content["real"] = asdict(measure_real(p_NK, [task.real[i] for i in found.usable]))
    content["published"] = _beside_published(task, given, content, len(found.unreadable))
    content["speed"] = {
        "images_per_second": found.passes.images_per_second,
        "waiting": found.passes.waiting,
        "batch_size": found.passes.batch_size,
    }
    content["unreadable"] = [one.row() for one in found.unreadable]
    return content


def _beside_published(
    task: _Task, given: Evaluate, content: dict[str, Any], left_out: int
) -> dict[str, Any] | None:
    """What the publishers of a zoo model measured on ImageNet, beside what was measured here."""
    from mixerkit.evaluation.agreement import beside_published, why_incomparable

    one = published(given.model)
    if one is None or task.source != IMAGENET:
        return None
    images, own_way = task.images, task.preprocess == task.model.preprocess
    reason = why_incomparable(images.split, images.name == "test", left_out, own_way)
    return beside_published(one, content, reason)
