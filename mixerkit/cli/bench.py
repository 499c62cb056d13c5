"""`mixer bench`: measurements of this machine, each into one results file."""

import json
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixerkit.cli.arguments import Flag, parse, shown_as
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.results import measuring

EXAMPLES = """\
  mixer bench speed --quick
  mixer bench speed --out results/speed.json
  mixer bench throughput
  mixer bench inference --model S/16           # results/inference-S-16.json
  mixer bench time-to-accuracy
"""

Study = Literal[
    "speed",
    "inference",
    "int8",
    "parity",
    "cold-start",
    "throughput",
    "token-mixing",
    "optimizers",
    "time-to-accuracy",
    "training-memory",
    "loading",
    "loader",
    "whole-path",
    "surgery",
    "transfer",
    "regularisation",
]
FOLDER = Path("results")
OF_A_MODEL = {
    "inference": ("B/16", "zoo:fashion-demo"),
    "int8": ("zoo:fashion-best", "zoo:fashion-best"),
}
"""Those that take a model, with their own: for the full measurement, and for a short look."""

# Each module has `study(out, say, quick) -> rows`; those of a model take that as well.
STUDIES = {
    "speed": ("mixerkit.benchmark.speed", "passes of our models against timm's of the same shape"),
    "inference": (
        "mixerkit.benchmark.inference",
        "our engine against timm's model in every runtime that is installed",
    ),
    "int8": ("mixerkit.study.int8", "what computing in 8 bits does to a trained model"),
    "parity": ("mixerkit.study.parity", "what exported models give beside PyTorch"),
    "cold-start": ("mixerkit.benchmark.cold_start", "seconds from starting Python to an answer"),
    "throughput": (
        "mixerkit.study.throughput",
        "the paper's Mixers beside ViT, ResNet and others; and by the number of patches",
    ),
    "token-mixing": ("mixerkit.benchmark.token_mixing", "ways to compute it inside a model"),
    "optimizers": (
        "mixerkit.study.optimizers",
        "seconds of an update by Muon, ours against PyTorch's",
    ),
    "time-to-accuracy": (
        "mixerkit.study.time_to_accuracy",
        "seconds of training to an accuracy, against timm's Mixer",
    ),
    "training-memory": (
        "mixerkit.study.training_memory",
        "memory and seconds of a step of B/16, against timm's",
    ),
    "loading": ("mixerkit.benchmark.loading", "seconds and memory for the weights of B/16"),
    "loader": ("mixerkit.study.loader", "JPEG files a second, against timm's loader"),
    "whole-path": (
        "mixerkit.study.whole_path",
        "evaluation and fine-tuning of B/16 from JPEG files to figures",
    ),
    "surgery": (
        "mixerkit.study.surgery",
        "accuracy of a model moved to other image and patch sizes",
    ),
    "transfer": (
        "mixerkit.study.new_classes",
        "accuracy on classes that a model has never seen, from few images",
    ),
    "regularisation": (
        "mixerkit.study.regularisation",
        "accuracy with the paper's regularisation and without",
    ),
}
"""The module of each, and what it measures."""


@dataclass(frozen=True)
class Bench:
    """Measure something on this machine, and write the figures down.

    Close other programs first: the figures are only as quiet as the machine.
    """

    study: Annotated[tyro.conf.Positional[Study], shown_as("STUDY")]
    """What is measured: one of those below."""
    model: Annotated[str, shown_as("MODEL")] = ""
    """For inference: a variant with fresh weights (B/16 if not given), a run or zoo:NAME; for int8:
    a run or zoo:NAME (zoo:fashion-best if not given)."""
    quick: Flag = False
    """A short look instead of the full measurement."""
    out: Annotated[str, shown_as("PATH")] = ""
    """Results file; results/STUDY.json if not given, results/STUDY-quick.json with --quick, and
    results/STUDY-MODEL.json for another model than the study's own."""
    json: Flag = False
    """Print the rows as JSON in one line, the last, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer bench` with `words`."""
    given = parse(Bench, words, command="bench", examples=f"{EXAMPLES}\n{_studies()}")
    console = sys.stderr if given.json else sys.stdout

    def say(line: str) -> None:
        print(line, file=console, flush=True)

    options, out = _model(given), _out(given)
    _refuse_unless_writable(out)
    if out.exists():
        say(f"{out} is there already: what is measured now takes its place.")
    with measuring():
        rows = import_module(STUDIES[given.study][0]).study(out, say, given.quick, **options)
    say(f"written: {out}")
    if given.json:
        print(json.dumps(rows))
    return EXIT_DONE


def _studies() -> str:
    """What can be measured, a line for each."""
    wide = max(map(len, STUDIES))
    lines = (f"  {name:{wide}}  {about}" for name, (_, about) in STUDIES.items())
    return "\n".join(["Studies:", *lines])


def _model(given: Bench) -> dict[str, str]:
    """The model to measure, for studies of one."""
    if given.study in OF_A_MODEL:
        return {"model": given.model or OF_A_MODEL[given.study][given.quick]}
    if given.model:
        raise UserError(f"--model is for {' and '.join(OF_A_MODEL)}: leave it out.")
    return {}


def _out(given: Bench) -> Path:
    """The results file; another model than the study's own has a file of its own."""
    if given.out:
        return Path(given.out)
    parts: list[str] = [given.study]
    if given.model and given.model != OF_A_MODEL[given.study][given.quick]:
        parts.append(re.sub(r"\W+", "-", given.model).strip("-"))
    parts += ["quick"] if given.quick else []
    return FOLDER / f"{'-'.join(parts)}.json"


def _refuse_unless_writable(out: Path) -> None:
    """`UserError` where the file could not be written in the end; `FOLDER` is made then."""
    from mixerkit.checkpoint.files import check_place

    try:
        if out.is_dir():
            raise UserError(f"{out} is a folder: give a file in it, such as {out / 'bench.json'}.")
        if out.exists() and not out.is_file():
            raise UserError(f"{out} is no file that can be replaced: give another name.")
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{out} cannot be written: {why}. Give another --out.") from error
    check_place(Path(out.name) if out.parent == FOLDER and not FOLDER.exists() else out)
