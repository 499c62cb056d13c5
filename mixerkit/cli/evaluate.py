"""`mixer evaluate`: how good a saved model is on labelled images."""

import json
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit import launch
from mixerkit.cli import evaluation_text
from mixerkit.cli.arguments import (
    Flag,
    Word,
    parse,
    shown_as,
    value_of,
    wants_help,
)
from mixerkit.cli.images import (
    check_classes,
    choose_split,
    data_named,
    loaded,
    model_named,
    own_data,
    same_images,
    source_named,
)
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.imagenet import readable
from mixerkit.spec.recipe import Data

if TYPE_CHECKING:
    from mixerkit.cli.measuring import Measured
    from mixerkit.data.sources import ImageSplit
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess
    from mixerkit.training.world import World

EXAMPLES = """\
  mixer evaluate runs/fashion-demo
  mixer evaluate zoo:b16-imagenet1k-google --on imagenet-real --data.root /data
  mixer evaluate runs/photos-64@best --on more-photos --json
  mixer evaluate zoo:l16-imagenet1k-google --on imagenet --crop resize-crop
  torchrun --nproc-per-node 4 -m mixerkit evaluate zoo:l16-imagenet1k-google --on imagenet
  mixer evaluate runs/photos-64 --on more-photos --protocol fewshot       # see its own --help
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data
"""

SWITCHES = ("--json", "--skip-broken")
PROTOCOLS = ("fewshot", "avg5", "robustness")
"""Those with a command of their own."""
REAL = "imagenet-real"
SHORT_SIDE = 256 / 224
"""The side that images are scaled to over the side of the crop, in both of the paper's rules."""
CROPS = {"resize-crop": "squash", "resmall-crop": "shortest"}


@dataclass(frozen=True)
class Evaluate:
    """Measure MODEL on the data that it was trained for, or on other data with the same classes.

    Images are prepared as the model's own file says, whatever the data's settings; under torchrun
    each process measures its share. Intervals are 95 %, by the bootstrap over images."""

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder or zoo:NAME, or a run's checkpoint (RUN@newest, RUN@best,
    RUN@STEP)."""
    on: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """The images: a named set, or a folder with one sub-folder per class (same as --data.source).
    imagenet-real: ImageNet's validation images with the cleaned-up ReaL labels, too."""
    protocol: Literal["top1", "fewshot", "avg5", "robustness"] = "top1"
    """What is measured; each other protocol has a --help of its own."""
    data: Data = field(default_factory=Data)
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
    """Leave out images that cannot be used and say which; otherwise the first one is an error,
    whatever data.max_unreadable."""
    json: Flag = False
    """Print JSON, with the confusion matrix."""


def main(words: list[str]) -> int:
    """Run `mixer evaluate` with `words`."""
    protocol = value_of("--protocol", words)
    if protocol in PROTOCOLS:
        if launch.processes() > 1:
            raise UserError(
                f"--protocol {protocol} is for one process: start it without torchrun"
                f"{', several times for several devices.' if protocol == 'avg5' else '.'}"
            )
        found: int = import_module(f"mixerkit.cli.{protocol}").main(words)
        return found
    if wants_help(words):
        parse(Evaluate, words, command="evaluate", examples=EXAMPLES)
    from mixerkit.training.distributed import joined

    with joined() as world:
        return _evaluate(words, world)


def _evaluate(words: list[str], world: "World") -> int:
    name = model_named(words, SWITCHES)
    model, _ = world.after_first(lambda: loaded(name))
    own = own_data(model)
    source = source_named(words)
    data = data_named(words, own, "imagenet" if source == REAL else source)
    default = Evaluate(name, data=data)
    given = world.after_first(
        lambda: parse(Evaluate, words, command="evaluate", examples=EXAMPLES, default=default)
    )
    split, origin = world.after_first(
        lambda: choose_split(given.data, given.split, not same_images(given.data, own))
    )
    truth = world.after_first(lambda: _real_labels(split) if source == REAL else None)
    found = _measure(model, given, split, world)
    if found is None:  # the first process tells
        return EXIT_DONE
    content = _figures(model, given, split, origin, found, truth)
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(evaluation_text.as_text(content, _title(model, name)))
    return EXIT_DONE


def _title(model: "MlpMixer", name: str) -> str:
    """The model's name, and the step that a name such as RUN@best stands for."""
    step = model.about.get("step") if "@" in name else None
    return f"{name} (step {step:,})" if step is not None else name


def _real_labels(split: "ImageSplit") -> "tuple[frozenset[int], ...]":
    """Refused before any time is spent where ReaL's labels are missing or of other images."""
    from mixerkit.data.real import real_file, real_labels

    return real_labels(split, real_file(split))


def _measure(
    model: "MlpMixer", given: Evaluate, split: "ImageSplit", world: "World"
) -> "Measured | None":
    """The model's way over the images that can be used; None for all processes but the first."""
    from mixerkit.cli.measuring import measured
    from mixerkit.data.decode import BrokenImage

    if given.batch_size < 0:
        raise UserError(f"--batch-size must not be negative, found {given.batch_size}.")
    preprocess = _cropped(model, given)
    check_classes(preprocess, split)
    try:
        return measured(
            model, split, preprocess, given.data, given.batch_size, given.skip_broken, world
        )
    except BrokenImage as error:
        raise UserError(
            f"{error} Or give --skip-broken: it measures the others, and says which were left out."
        ) from error


def _cropped(model: "MlpMixer", given: Evaluate) -> "Preprocess":
    """How images are prepared: the model's own way, or one of the paper's rules."""
    prepared = model.preprocess
    assert prepared
    if given.crop == "own":
        return prepared
    side = round(SHORT_SIDE * max(prepared.image_hw))
    resize: Any = CROPS[given.crop]
    return replace(prepared, resize=resize, resize_to=side)


def _figures(
    model: "MlpMixer",
    given: Evaluate,
    split: "ImageSplit",
    origin: str,
    found: "Measured",
    truth: "tuple[frozenset[int], ...] | None",
) -> dict[str, Any]:
    """Everything that is told, as JSON has it."""
    from mixerkit.evaluation.accuracy import measure
    from mixerkit.evaluation.agreement import beside_published
    from mixerkit.evaluation.interval import bootstrap
    from mixerkit.evaluation.real import measure_real

    p_NK, labels_N = found.passes.probabilities, found.passes.labels
    accuracy = measure(p_NK, labels_N, readable(split.class_names))
    right_N = (p_NK.numpy().argmax(axis=1) == labels_N.numpy()).astype(float)
    about = {"model": given.model, "step": model.about.get("step")}
    about |= {"data": split.name, "origin": origin, "crop": given.crop}
    content = about | asdict(accuracy) | {"top1_interval": bootstrap(right_N)}
    if truth is not None:
        content["real"] = asdict(measure_real(p_NK, [truth[i] for i in found.usable]))
    content["published"] = beside_published(given.model, given.data.source, content)
    content["speed"] = {
        "images_per_second": found.passes.images_per_second,
        "waiting": found.passes.waiting,
        "batch_size": found.passes.batch_size,
    }
    content["unreadable"] = [one.row() for one in found.unreadable]
    return content
