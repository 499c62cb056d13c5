"""`mixer train`: a recipe, changed from the command line, into a run folder."""

import json
import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mixerkit.cli.arguments import (
    WITHOUT_PREFIX,
    Flag,
    Word,
    leading_word,
    parse,
    shown_as,
    value_of,
    wants_help,
)
from mixerkit.cli.program import command
from mixerkit.cli.text import clock, pairs, percent
from mixerkit.errors import EXIT_DONE, RunFailed, UserError, exit_code_for_signal
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.recipe import Data, Recipe
from mixerkit.spec.recipes import RECIPES, recipe

if TYPE_CHECKING:
    from mixerkit.training.result import TrainingResult

EXAMPLES = """\
  mixer train fashion-demo --dry-run
  mixer train fashion-demo --duration "3 epochs" --optimizer.lr 0.01 --out runs/short
  mixer train photos-64 --data.source my-photos --model.depth 8
  mixer train photos-64 --data.source my-photos --model S/16
  mixer train my-recipe.yaml --json
  mixer train --resume runs/short
"""

SWITCHES = ("--dry-run", "--json")
RUNS = Path("runs")


@dataclass(frozen=True)
class Train:
    """Train by RECIPE: a name from `mixer recipes`, or a YAML file (`mixer recipes show NAME`
    prints one to start from). Every setting can be changed here; the defaults shown are those of
    RECIPE. The run folder gets the recipe, metrics, checkpoints, the model and report.html."""

    settings: Annotated[Recipe, WITHOUT_PREFIX]
    recipe: Annotated[Word, shown_as("RECIPE")] = ""
    """Name of a recipe, or a YAML file; it comes first."""
    model: Annotated[str, shown_as("LABEL")] = ""
    """A variant in place of the recipe's model, such as S/16, for the same images and classes."""
    out: Annotated[str, shown_as("FOLDER")] = ""
    """Run folder (if not given, runs/NAME, or the first free one of -2, -3, …)."""
    resume: Annotated[str, shown_as("RUN")] = ""
    """Go on with this run folder from its newest checkpoint, by the run's own recipe."""
    dry_run: Flag = False
    """Print what would happen and what it would cost; write nothing."""
    json: Flag = False
    """Print the result as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer train` with `words`."""
    given = _parse(words)
    if given.dry_run:
        return _dry_run(given.settings, given.json)
    console = sys.stderr if given.json else sys.stdout
    folder = Path(given.resume or given.out or free_folder(given.settings, given.recipe))
    result, report = run(given.settings, folder, resume=bool(given.resume), console=console)
    if given.json:
        print(json.dumps(_as_dict(result, report), indent=2))
    elif not result.interrupted:
        print("\n" + pairs(summary(result, report)))
        print("\n".join(["", "Next:", *(f"  {each}" for each in _next(given.settings, folder))]))
    return exit_code_for_signal(result.interrupted) if result.interrupted else EXIT_DONE


def _next(settings: Recipe, folder: Path) -> list[str]:
    """Commands that work on the run from here."""
    photos = settings.data.source
    predict = [command("predict", photos, "--model", folder)] if Path(photos).is_dir() else []
    return [command("evaluate", folder), *predict, command("info", folder)]


def _parse(words: list[str]) -> Train:
    """Read the recipe that the words name, then the words over it."""
    name, resumed = leading_word(words, SWITCHES), value_of("--resume", words)
    if name and resumed:
        raise UserError(
            f"--resume goes on with the recipe of {resumed}; leave out '{name}', or start a new "
            f"run without --resume."
        )
    if not (name or resumed or wants_help(words)):
        raise UserError(
            f"Which recipe? It comes first: `mixer train RECIPE [options]`. "
            f"Recipes: {', '.join(RECIPES)}, or a YAML file."
        )
    if resumed and "--dry-run" in words:
        raise UserError("--dry-run plans a new run, --resume goes on with one: leave one out.")
    base = _run_recipe(resumed) if resumed else recipe(name or next(iter(RECIPES)))
    label = value_of("--model", words)
    if label:
        base = replace(base, model=_in_place_of(base.model, label))
    default = Train(base, recipe=name)
    given = parse(Train, words, command="train", examples=EXAMPLES, default=default)
    if resumed:
        _refuse_changes(given)
    return given


def _in_place_of(model: MixerConfig, label: str) -> MixerConfig:
    """The variant `label` for the same images and classes."""
    return variant(
        label,
        image_size=model.image_size,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
    )


def _run_recipe(folder: str) -> Recipe:
    """The recipe of the run in `folder`, put back from its checkpoints where it is damaged."""
    from mixerkit.checkpoint.run import RunFolder

    with RunFolder.open(Path(folder), writing=True) as run:
        return run.recipe()


def _refuse_changes(given: Train) -> None:
    """A run is resumed as it was started: another setting would make it another run."""
    stored = _run_recipe(given.resume)
    changed = [
        name
        for field in fields(Recipe)
        if (name := field.name) and getattr(given.settings, name) != getattr(stored, name)
    ]
    if changed or given.out:
        what = ", ".join(f"--{name}" for name in [*changed, *(["out"] if given.out else [])])
        raise UserError(
            f"A resumed run keeps its recipe and folder, found {what}: leave that out, or start "
            f"a new run from {given.resume} with `mixer train {given.resume} --out FOLDER …`."
        )


def free_folder(settings: Recipe, source: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, … that does not exist."""
    name = settings.name if settings.name != "custom" or not source else Path(source).stem
    folder, number = RUNS / name, 2
    while folder.exists():
        folder, number = RUNS / f"{name}-{number}", number + 1
    return folder


def located(data: Data) -> Data:
    """`data` with whole paths for its folders: a recipe must mean the same from every folder."""
    from mixerkit.data.sources import SOURCES

    is_folder = data.source not in ("", *SOURCES) and Path(data.source).is_dir()
    return replace(
        data,
        source=_whole(data.source) if is_folder else data.source,
        root=_whole(data.root) if data.root else "",
    )


def _whole(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (resolve() would follow links)


def _dry_run(settings: Recipe, as_json: bool) -> int:
    from mixerkit.training.plan import plan

    planned = plan(settings)
    if as_json:
        print(json.dumps(planned.as_dict(), indent=2))
    else:
        print(f"{settings.name}: what would happen (nothing was written)\n")
        print(pairs(planned.rows()))
    return EXIT_DONE


def run(
    settings: Recipe, folder: Path, *, resume: bool, console: Any
) -> "tuple[TrainingResult, Path | None]":
    """Train into `folder` while `console` watches, then write the report."""
    from mixerkit.cli.progress import Console
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw
    from mixerkit.training.loop import train

    watch = Console(console)
    watch.say(f"run:  {folder}")
    if not can_draw():
        watch.say(f"There will be no report: {HOW_TO_DRAW}")
    if not resume:
        settings = replace(settings, data=located(settings.data))
    result = train(settings, folder, resume=resume, watch=watch)
    if result.interrupted:
        again = command("train", "--resume", folder)
        watch.say(f"Stopped at step {result.steps:,}, saved. Go on with:\n  {again}")
        return result, None
    watch.say("drawing the report")
    return result, write_report(folder)


def write_report(folder: Path) -> Path | None:
    """Write the run's report.html; where the plotting package is missing, say so and go on."""
    from mixerkit.checkpoint.run import RunFolder
    from mixerkit.insight.report import write_report as write

    try:
        with RunFolder.open(folder) as opened:
            return write(opened)
    except UserError as error:
        print(f"mixer: no report: {error}", file=sys.stderr)
        return None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        again = command("runs", "report", folder)
        raise RunFailed(
            f"The run is finished and its model kept, but the report could not be written "
            f"({where}{error.strerror or error}). Free at least 10 MiB on the disk of {folder}, "
            f"then write it:\n  {again}"
        ) from error


def summary(result: "TrainingResult", report: Path | None) -> list[tuple[str, str]]:
    """What a person wants to know of a finished run."""
    rows = [("accuracy", line) for line in _accuracies(result)]
    rows.append(("time", f"{clock(result.seconds)} of training, {result.steps:,} steps"))
    if result.images_per_second:
        rows.append(("speed", f"{result.images_per_second:,.0f} images/s"))
    rows.append(("model", str(result.run / "model")))
    if report:
        rows.append(("report", str(report)))
    return rows


def _accuracies(result: "TrainingResult") -> list[str]:
    if result.test:
        return [f"{percent(result.test.top1)} of {result.test.samples:,} test images"]
    if result.validation:
        count = result.validation.samples
        return [f"{percent(result.validation.top1)} of {count:,} held-out images"]
    return []


def _as_dict(result: "TrainingResult", report: Path | None) -> dict[str, Any]:
    accuracies = {"validation": result.validation, "test": result.test}
    short = {
        name: {key: value for key, value in asdict(found).items() if isinstance(value, int | float)}
        for name, found in accuracies.items()
        if found is not None
    }
    return {
        "run": str(result.run),
        "steps": result.steps,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        **short,
        "report": str(report) if report else None,
        "interrupted": result.interrupted,
    }
