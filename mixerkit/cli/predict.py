"""`mixer predict`: the likeliest classes of image files, as a table or as JSON."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Words, parse, shown_as
from mixerkit.cli.counting import Counting
from mixerkit.cli.progress import Console
from mixerkit.cli.text import percent
from mixerkit.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, UserError
from mixerkit.spec.mixer import Size

if TYPE_CHECKING:
    from mixerkit.inference.predictor import Classifier, Prediction
    from mixerkit.model.mixer import MlpMixer

EXAMPLES = """\
  mixer predict shirt.png boot.png
  mixer predict my-photos --model runs/photos-64 --top 1
  mixer predict panorama.jpg --model runs/photos-64 --tiles 2
  mixer predict my-photos --model photos.onnx        # exported (mixer export): needs no PyTorch
  mixer predict my-photos --model runs/photos-64 --backend auto      # whatever is fastest here
  find . -name '*.jpg' | mixer predict - --model runs/photos-64 --json
"""

DEFAULT_MODEL = "zoo:fashion-demo"
WIDEST_NAME = 60


@dataclass(frozen=True)
class Predict:
    """Name the likeliest classes of image FILES: files, folders (every image below them), or `-`
    for a list of files on standard input, one path a line. A file that cannot be used is an error;
    the others are named all the same (exit code 1, or 2 when none can be used)."""

    files: Annotated[Words, shown_as("FILES")]
    """Image files or folders, or - for a list of files on standard input."""
    model: Annotated[str, shown_as("MODEL")] = DEFAULT_MODEL
    """Run folder, model folder or zoo:NAME, a run's checkpoint (RUN@newest, RUN@best, RUN@STEP), or
    an exported model (.onnx or .xml); if not given, the demo's, which knows clothing."""
    top: int = 3
    """Classes shown for each image."""
    batch_size: int | None = None
    """Images computed at once; 32 if not given, or what --backend finds fastest here."""
    image_size: Size | None = None
    """Another image size than the model's own, one side or height and width (`mixer convert`)."""
    tiles: int = 0
    """Look at the whole photograph in overlapping tiles, so many along its short side; 0 looks at
    the centre, as in training."""
    backend: Literal[
        "default", "auto", "pytorch", "compiled", "native", "onnxruntime", "openvino"
    ] = "default"
    """What computes: PyTorch its models, and an exported one the first installed runtime that reads
    it (default; in bfloat16 what is fastest); or what is fastest here (auto), which is measured for
    some seconds, or minutes where the model is large, and remembered. native is our own code,
    compiled for this processor."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in: that of an exported file, else float32 (auto); bfloat16 needs
    a GPU, or OpenVINO and a processor that has it. For 8 bits export the model."""
    again: Flag = False
    """Measure anew what is fastest here."""
    json: Flag = False
    """Print one JSON document: a list with one object for each image."""


def main(words: list[str]) -> int:
    """Run `mixer predict` with `words`."""
    given = parse(Predict, words, command="predict", examples=EXAMPLES)
    if given.top < 1:
        raise UserError(f"--top must be at least 1, found {given.top}.")
    if given.batch_size is not None and given.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {given.batch_size}.")
    paths = list(find_images(given.files))
    from mixerkit.inference.predictor import BATCH_SIZE, predict_files

    model, notes = _opened(given)
    batch_size = given.batch_size
    if batch_size is None:
        batch_size = getattr(model, "batch_size", BATCH_SIZE)
    predictions = predict_files(
        model,
        paths,
        batch_size=batch_size,
        top=given.top,
        tiles=given.tiles,
        keep_going=True,
    )
    for note in notes:
        print(f"assumed: {note}", file=sys.stderr)
    errors: list[str] = []
    console = Console(sys.stderr)
    found = _telling_errors(predictions, errors, console)
    with _told_how_to_fit(given.model, batch_size):
        if given.json:
            _print_json(_counted(found, len(paths), console))
        else:
            _print_table(found, paths, model.preprocess.class_names if model.preprocess else ())
    return _exit_code(len(errors), len(paths))


def _told_how_to_fit(source: str, batch_size: int) -> AbstractContextManager[None]:
    """Memory that is short is told with what helps; exported models do without PyTorch."""
    from mixerkit.inference.exported import is_exported

    if is_exported(source):
        return nullcontext()
    from mixerkit.device import memory_told

    return memory_told(lambda: f"Give a --batch-size below {batch_size}.")


def _opened(given: Predict) -> "tuple[MlpMixer | Classifier, tuple[str, ...]]":
    """The model, and what was assumed about it. An exported model is opened without PyTorch."""
    from mixerkit.inference.exported import is_exported, open_exported
    from mixerkit.inference.ways import check_precision

    if is_exported(given.model) and given.image_size is not None:
        raise UserError(
            f"{given.model} is exported for one image size: leave --image-size out, or export the "
            f"model with it."
        )
    measures = given.backend != "default" or given.precision == "bfloat16"
    if given.again and not measures:
        raise UserError("Nothing is measured unless a --backend is given: leave --again out.")
    if measures:
        from mixerkit.inference.engine import Predictor

        predictor = Predictor(
            given.model,
            given.precision,
            backend="auto" if given.backend == "default" else given.backend,
            image_size=given.image_size,
            again=given.again,
            watch=_say,
        )
        return predictor, predictor.notes
    if is_exported(given.model):
        exported = open_exported(Path(given.model))
        check_precision(exported, given.precision)
        return exported, ()
    from mixerkit.checkpoint.load import load
    from mixerkit.device import device_here

    model = load(given.model, image_size=given.image_size).to(device_here())
    return model, model.notes


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _telling_errors(
    predictions: "Iterator[Prediction]", errors: list[str], console: Console
) -> "Iterator[Prediction]":
    """The predictions again; each error is said on stderr at once, and added to `errors`."""
    for prediction in predictions:
        if prediction.error:
            errors.append(prediction.error)
            sys.stdout.flush()  # what was printed before the error stays before it
            console.say(f"mixer: error: {_text(prediction.error)}")
        yield prediction


def _exit_code(errors: int, files: int) -> int:
    """Bad input when that is all there was; failed when some of several files had to be left."""
    if not errors:
        return EXIT_DONE
    if files > 1:
        print(f"mixer: {errors} of {files} files cannot be used.", file=sys.stderr)
    return EXIT_BAD_INPUT if errors == files else EXIT_FAILED


def _counted(found: "Iterator[Prediction]", total: int, console: Console) -> "Iterator[Prediction]":
    """The predictions again; how many of all there are is told, with the time left."""
    counting = Counting(console, "images", total)
    try:
        for done, prediction in enumerate(found, 1):
            yield prediction
            counting(done)
    finally:
        console.draw("")


def find_images(words: tuple[str, ...]) -> Iterator[Path]:
    """The files that the words name: folders are searched, "-" is a list on standard input."""
    from mixerkit.inference.predictor import images_in

    if not words:
        raise UserError(
            "Which images? `mixer predict FILES`: files, folders, or - for a list on stdin."
        )
    for word in words:
        if word == "-":
            listed = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            lines = [line for each in listed if (line := each.removesuffix("\r"))]
            if not lines:
                raise UserError("The list on standard input is empty: expected one path a line.")
            yield from map(Path, lines)
        elif not word:
            raise UserError("One of the FILES is an empty text: expected a file or a folder.")
        elif Path(word).is_dir():
            yield from images_in(Path(word))
        elif Path(word).exists():
            yield Path(word)
        else:
            raise UserError(f"No file or folder {word}.")


def _print_table(found: "Iterator[Prediction]", paths: list[Path], labels: tuple[str, ...]) -> None:
    """One line for each image as soon as it is known, with columns that stay aligned."""
    width = min(WIDEST_NAME, max((len(str(path)) for path in paths), default=0))
    cell = max((len(label) for label in labels), default=4) + len("  100.0 %")
    for prediction in found:
        if prediction.error:
            continue
        name = _text(prediction.path)
        if len(name) > WIDEST_NAME:
            name = "…" + name[1 - WIDEST_NAME :]
        cells = [f"{label}  {percent(p, 1)}".ljust(cell) for label, p in prediction.classes]
        print(f"{name:{width}}  {'  '.join(cells)}".rstrip(), flush=True)


def _print_json(found: "Iterator[Prediction]") -> None:
    """One document, also when something ends it early."""
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(_row(prediction) for prediction in found)
    finally:
        print(json.dumps(rows, indent=2, ensure_ascii=False))


def _row(prediction: "Prediction") -> dict[str, Any]:
    row: dict[str, Any] = {"file": _text(prediction.path)}
    if prediction.error:
        return row | {"error": _text(prediction.error)}
    return row | {"classes": [{"name": label, "probability": p} for label, p in prediction.classes]}


def _text(path_or_error: Path | str) -> str:
    """What can be printed; bytes of a file's name that are not UTF-8 are written as \\x…."""
    return str(path_or_error).encode(errors="backslashreplace").decode()
