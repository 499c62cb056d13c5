"""`mixer export`: a model as a file for other runtimes, or a page, which need no PyTorch."""

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.text import pairs, percent, size, table
from mixerkit.errors import EXIT_DONE, UserError, how_to_install
from mixerkit.spec.mixer import Size, is_variant

if TYPE_CHECKING:
    import numpy as np

    from mixerkit.inference.export import Written
    from mixerkit.inference.gate import Verdict
    from mixerkit.inference.mixer_graph import EightBits
    from mixerkit.inference.web_runtime import Taken
    from mixerkit.model.mixer import MlpMixer

EXAMPLES = """\
  mixer export zoo:fashion-demo                                # fashion-demo.onnx
  mixer predict boot.png --model fashion-demo.onnx             # needs no PyTorch
  mixer export runs/photos-64@best --to openvino --out photos.xml
  mixer export zoo:b16-imagenet1k-google --precision float16   # half the bytes
  mixer export runs/photos-64 --precision int8                 # faster, if it answers as before
  mixer export model.pth --precision int8 --images my-photos --out model.onnx
  mixer export runs/photos-64 --pixels --probabilities         # 8-bit images in, shares out
  mixer export zoo:fashion-demo --to web --out page            # a page that classifies images
"""


@dataclass(frozen=True)
class Export:
    """Write MODEL for another runtime: `onnx` (one file, for ONNX Runtime and most others),
    `openvino` (an .xml file and a .bin beside it) or `web` (a folder for any web server: a page on
    which the model classifies images in the visitor's browser, docs/web.md).

    The batch may have any size; preprocessing and class names are in the file's metadata. Before
    anything is written, every installed runtime that can read it is compared with PyTorch.

    int8 finds its ranges on images, tries what is known to help, and leaves products in float that
    cost too much. It is refused (exit code 3) where on other images the likeliest class changes for
    more than 1 %, or where it is less than 1.2 times as fast on this machine.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder, file of weights, zoo:NAME, hf://ORG/NAME, or a run's checkpoint
    (RUN@newest, RUN@best, RUN@STEP)."""
    to: Literal["onnx", "openvino", "web"] = "onnx"
    """What to write."""
    out: Annotated[str, shown_as("FILE|FOLDER")] = ""
    """The file, or the page's folder; the model's name with .onnx, .xml or -page if not given.
    Nothing is overwritten."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """float16 stores matrices in half the bytes; all is computed in float32. int8 computes products
    in 8 bits."""
    images: Annotated[str, shown_as("NAME|FOLDER")] = ""
    """Images for int8 and for the comparison: a named set, a folder with one for each class, or a
    folder of images. If not given, int8 takes those that the model was trained on, and the
    validation images to judge by; the comparison alone takes noise."""
    root: Annotated[str, shown_as("FOLDER")] = ""
    """Folder in which named sets are looked for first, also the one that the model was trained
    on."""
    count: Annotated[int | None, shown_as("INT")] = None
    """How many images, at most, 512 if not given; they are spread over the whole set. As many
    validation images judge int8; without any, half of the images do, or 100."""
    percentile: Annotated[float | None, shown_as("FLOAT")] = None
    """For int8: this share (%) of values inside the ranges, instead of the best of 99.9, 99.99 and
    100."""
    smooth: Annotated[float | None, shown_as("FLOAT")] = None
    """For int8: how much of the differences between channels the matrices take over (SmoothQuant's
    α, 0 to 1), instead of the better of 0 and 0.5."""
    sensitivity: Flag = False
    """For int8: measure what each product costs, also if none has to stay in float."""
    pixels: Flag = False
    """Take 8-bit images [batch, height, width, channels], which the graph normalises, instead of
    normalised ones [batch, channels, height, width]. Both have the model's size."""
    probabilities: Flag = False
    """Give probabilities instead of logits."""
    image_size: Annotated[Size | None, shown_as("INT | INT INT")] = None
    """Another image size than the model's own, one side or height and width (`mixer convert`)."""
    force: Flag = False
    """Write it though its outputs differ, or int8 is refused; the file then says so."""
    runtime_files: Annotated[str, shown_as("FOLDER")] = ""
    """For a page: the folder of npm's package onnxruntime-web, instead of having npm fetch it."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer export` with `words`."""
    given = parse(Export, words, command="export", examples=EXAMPLES)
    out, runtime = begun(given)
    model = _loaded(given)
    from mixerkit.cli.export_images import images_for, rounded_on, samples_for

    if given.precision == "int8":
        samples = samples_for(model, given)
        rounded, pixels = rounded_on(samples, model, given), samples.judge
    else:
        rounded, pixels = None, images_for(model, given)
    found = _written(given, model, out, runtime, pixels, rounded)
    verdict = rounded[1] if rounded else None
    if given.json:
        print(json.dumps(_report(given, found, verdict), indent=2))
    else:
        print(_text(given, model, out, found, verdict))
    return EXIT_DONE


def begun(given: Export) -> "tuple[Path, dict[Taken, bytes]]":
    """Where it will be, after what is known to be wrong was said; and what a page needs besides."""
    _check(given)
    from mixerkit.inference.export import check_free
    from mixerkit.inference.readers import SUFFIX
    from mixerkit.inference.web_runtime import runtime_files

    if given.to == "web":
        out = _page(given)
        _check_packages(given)
        return out, runtime_files(Path(given.runtime_files) if given.runtime_files else None)
    if given.runtime_files:
        raise UserError("--runtime-files are for a page: give --to web, too, or leave them out.")
    out = Path(given.out or f"{name_of(given.model)}{SUFFIX[given.to]}")
    check_free(out, given.to)
    _check_packages(given)
    return out, {}


def _check(given: Export) -> None:
    if given.count is not None and given.count < 2:
        raise UserError(f"--count must be at least 2, found {given.count}.")
    int8 = given.precision == "int8"
    about_int8 = {
        "--percentile": given.percentile is not None,
        "--smooth": given.smooth is not None,
        "--sensitivity": given.sensitivity,
    }
    about_images = {"--root": bool(given.root), "--count": given.count is not None}
    for name, is_given in about_int8.items():
        if is_given and not int8:
            raise UserError(f"{name} is for --precision int8: give it, too, or leave {name} out.")
    for name, is_given in about_images.items():
        if is_given and not (int8 or given.images):
            raise UserError(
                f"{name} is about images, and without any a model in {given.precision} is compared "
                f"on noise: give --images NAME|FOLDER, too, or leave {name} out."
            )
    if given.percentile is not None and not 50 <= given.percentile <= 100:
        raise UserError(f"--percentile must be from 50 to 100, found {given.percentile:g}.")
    if given.smooth is not None and not 0 <= given.smooth <= 1:
        raise UserError(f"--smooth must be from 0 to 1, found {given.smooth:g}.")


def _page(given: Export) -> Path:
    """The folder that the page will be."""
    from mixerkit.checkpoint.files import check_new, check_place

    if given.pixels or given.probabilities:
        raise UserError(
            "A page prepares its images and shows probabilities by itself: leave --pixels and "
            "--probabilities out."
        )
    out = Path(given.out or f"{name_of(given.model)}-page")
    check_new(out)
    check_place(out)
    return out


def _check_packages(given: Export) -> None:
    """`UserError` that names all packages that are missing: what writes the graph, and a runtime to
    read it back and to judge it in."""
    from importlib.util import find_spec

    from mixerkit.inference.readers import READERS
    from mixerkit.inference.runtimes import installed

    readers = ("onnxruntime",) if given.to == "web" else READERS[given.to]
    missing = {} if find_spec("onnx") else {"onnx": "onnx"}
    if not any(name in installed() for name in readers):
        missing[readers[0]] = " or ".join(readers)
    if missing:
        raise UserError(
            f"Exporting for {given.to} needs {' and '.join(missing.values())}: "
            f"{how_to_install(' '.join(missing))}"
        )


def _loaded(given: Export) -> "MlpMixer":
    """The model, if it can be exported in this way."""
    from mixerkit.checkpoint.load import load
    from mixerkit.cli.export_images import assume_preparation

    model = load(given.model, image_size=given.image_size)
    if not model.config.num_classes:
        if given.probabilities:
            raise UserError(f"{given.model} has no head and so no probabilities: leave them out.")
        if given.precision == "int8":
            raise UserError(
                f"int8 is judged by the likeliest class, and {given.model} has no head: export it "
                f"in float32 or float16."
            )
    if given.to == "web":
        from mixerkit.inference.web_export import check_suits

        check_suits(model)
    assume_preparation(model)
    for note in model.notes:
        print(f"assumed: {note}", file=sys.stderr)
    return model


def _written(
    given: Export,
    model: "MlpMixer",
    out: Path,
    runtime: "dict[Taken, bytes]",
    pixels_NIHW: "np.ndarray",
    rounded: "tuple[EightBits, Verdict] | None",
) -> "Written":
    """What was written, compared on these images."""
    from mixerkit.inference.export import export
    from mixerkit.inference.mixer_graph import Form
    from mixerkit.inference.web_export import web_export

    half, force, title = given.precision == "float16", given.force, name_of(given.model)
    what = (model, out, pixels_NIHW)
    if given.to == "web":
        return web_export(*what, runtime, title=title, half=half, rounded=rounded, force=force)
    form = Form(given.pixels, given.probabilities, half)
    more: dict[str, Any] = {"form": form, "rounded": rounded, "force": force}
    return export(*what, to=given.to, **more, watch=partial(print, file=sys.stderr))


def name_of(source: str) -> str:
    """A name for a file of the model `source`: "zoo:fashion-demo" gives "fashion-demo", and "B/16"
    "B-16"."""
    if is_variant(source):
        return source.replace("/", "-")
    last = Path(source.rpartition(":")[2]).name
    known = (".npz", ".safetensors", ".pth", ".pt", ".bin")
    stem = last.removesuffix(next((end for end in known if last.endswith(end)), ""))
    return stem.replace("@", "-") or "mixer"


def _report(given: Export, found: "Written", verdict: "Verdict | None") -> dict[str, Any]:
    report = {
        "model": given.model,
        "to": given.to,
        "precision": given.precision,
        "files": [str(path) for path in found.files],
        "bytes": found.size,
        "compared_on": "images" if given.images or verdict else "noise",
        "compared": [asdict(one) for one in found.comparisons],
        "forced": found.forced,
    }
    return report | ({"judged": verdict.row()} if verdict else {})


def _text(
    given: Export, model: "MlpMixer", out: Path, found: "Written", verdict: "Verdict | None"
) -> str:
    stored = ("size", size(found.size))
    if given.to == "web":
        served = f"python -m http.server -d {shlex.quote(str(out))} --bind 127.0.0.1"
        facts = [("written", f"{out}, a folder"), stored, ("look at it", served)]
    else:
        names = ", ".join(map(str, found.files))
        facts = [("written", names), stored, ("takes", _taken(given, model))]
    number, is_noise = found.comparisons[0].images, not (given.images or verdict)
    facts.append(("compared on", f"{number} images{' of noise' if is_noise else ''}"))
    if verdict:
        setting, speed = verdict.setting, verdict.speed
        facts += [
            ("setting", f"percentile {setting.percentile:g}, smoothing {setting.smooth:g}"),
            ("in float", ", ".join(verdict.in_float) or "the head alone"),
            ("same class", f"{percent(verdict.loss.agreement)} of {verdict.judged_on} images"),
            ("speed", f"{speed.ratio:.2f} times float32's, in {speed.runtime}{speed.elsewhere}"),
        ]
        if speed.runtime == "native" and speed.in_each:
            facts.append(("to run it so", f"mixer predict --backend auto --model {found.files[0]}"))
    if found.forced:
        facts.append(("forced", "without --force it is refused; the file says so"))
    rows = [("compared with PyTorch", "largest difference", "same likeliest class")]
    rows += [
        (one.runtime, f"{one.largest_difference:.1e}", percent(one.top1_agreement))
        for one in found.comparisons
    ]
    return f"{pairs(facts)}\n\n{table(rows)}"


def _taken(given: Export, model: "MlpMixer") -> str:
    (height, width), channels = model.config.image_hw, model.config.in_channels
    if given.pixels:
        return f"8-bit images [batch, {height}, {width}, {channels}]"
    return f"normalised images [batch, {channels}, {height}, {width}]"
