"""`mixer train`: a recipe, changed from the command line, into a run folder."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mixerkit import launch
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
from mixerkit.cli.running import located, recipe_named, run, run_where_free
from mixerkit.cli.text import clock, pairs, percent, plural, table
from mixerkit.errors import EXIT_DONE, UserError, exit_code_for_signal
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.recipes import RECIPES
from mixerkit.spec.shrink import shrunk

if TYPE_CHECKING:
    from mixerkit.training.result import TrainingResult

EXAMPLES = """\
  mixer train fashion-demo --dry-run
  mixer train fashion-demo --duration "3 epochs" --optimizer.lr 0.01 --out runs/short
  mixer train photos-64 --data.source my-photos --model.depth 8
  mixer train photos-64 --data.source my-photos --model S/16
  mixer train h14-jft --dry-run --devices 64 --memory 16
  torchrun --nproc-per-node 8 -m mixerkit train b16-imagenet1k --data.root /data --out runs/b16
  mixer train b16-imagenet1k --data.root /data --shrink    # the whole way, at toy size
  mixer train my-recipe.yaml --json
  mixer train --resume runs/short
  mixer train --resume runs/photos-64 --data.source /where/they/are/now
"""

SWITCHES = ("--dry-run", "--json", "--shrink")
DEVICE_MEMORY = 80.0  # GiB: of an A100 or H100


@dataclass(frozen=True)
class Train:
    """Train by RECIPE: a name from `mixer recipes`, or a YAML file (`mixer recipes show NAME`
    prints one to start from). Every setting can be changed here; the defaults shown are those of
    RECIPE. The run folder gets the recipe, metrics, checkpoints, the model and report.html.

    Exit code: 0 done, 1 failed, 2 bad input, and 128 + its number after a signal (Ctrl-C, SIGTERM,
    SIGHUP) before which everything was saved."""

    settings: Annotated[Recipe, WITHOUT_PREFIX]
    recipe: Annotated[Word, shown_as("RECIPE")] = ""
    """Name of a recipe, or a YAML file; it comes first."""
    model: Annotated[str, shown_as("LABEL")] = ""
    """A variant in place of the recipe's model, such as S/16, for the same images and classes."""
    out: Annotated[str, shown_as("FOLDER")] = ""
    """Run folder (if not given, runs/NAME, or the first free one of -2, -3, …)."""
    resume: Annotated[str, shown_as("RUN")] = ""
    """Go on with this run folder from its newest checkpoint, by the run's own recipe. Images that
    were moved are found by --data.source or --data.root: they must be the same, and the run's
    recipe stays as it is, so say it at every resume. What is damaged of a finished run is made
    again."""
    shrink: Flag = False
    """Try the recipe at toy size first: 2 blocks, 64 channels, batches of 8, 4 steps, random
    weights, measured on the held-out images alone; everything else as it is."""
    dry_run: Flag = False
    """Print what would happen and what it would cost; write nothing."""
    devices: Annotated[int, shown_as("N")] = 0
    """With --dry-run: how the memory of a step divides among N devices, and which strategy fits.
    Nothing is built or read, so that any model can be planned anywhere."""
    memory: Annotated[float, shown_as("GIB")] = 0.0
    """With --devices: memory of each, in GiB; 80 if not given."""
    json: Flag = False
    """Print the result as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer train` with `words`."""
    if launch.processes() == 1 or wants_help(words):
        return _carry_out(_parse(words))
    from mixerkit.training.distributed import joined

    with joined() as world:
        given = world.after_first(lambda: _parse(words))
        if world.first_says(lambda: _goes_on(given)):
            as_json = ["--json"] if given.json else []
            given = world.after_first(lambda: _parse(["--resume", given.out, *as_json]))
        return _carry_out(given)


def _carry_out(given: Train) -> int:
    if given.devices and not given.dry_run:
        raise UserError("--devices plans a run: say --dry-run too, or start it with torchrun.")
    if given.memory and not given.devices:
        raise UserError("--memory is that of each of --devices N: say how many.")
    if given.dry_run and launch.rank():
        return EXIT_DONE
    if given.devices:
        return show_division(
            given.settings, given.devices, given.memory or DEVICE_MEMORY, given.json
        )
    if given.dry_run:
        return dry_run(given.settings, given.json)
    folder = given.resume or given.out
    return carry_out(given.settings, folder, given.recipe, bool(given.resume), given.json)


def _goes_on(given: Train) -> bool:
    """Whether `torchrun` has started the processes again, so that the run that they began goes on,
    by its own recipe."""
    from mixerkit.checkpoint.opening import is_run

    if launch.may_restart() and not (given.out or given.resume or given.dry_run):
        raise UserError(
            "torchrun may start this run again, which then goes on in its folder: give one, "
            "--out FOLDER."
        )
    return launch.restarts() > 0 and bool(given.out) and is_run(Path(given.out))


def carry_out(settings: Recipe, folder: str, name: str, resume: bool, as_json: bool) -> int:
    """Train into `folder`, or a free one called after the recipe's `name`, and say what came of it;
    the exit code."""
    console: Any = sys.stderr if as_json else sys.stdout
    if launch.rank():  # the first process speaks
        console = io.StringIO()
    if folder:
        result, report = run(settings, Path(folder), resume=resume, console=console)
    else:
        result, report = run_where_free(settings, name, console)
    if launch.rank() == 0:
        _tell(settings, result, report, as_json)
    return exit_code_for_signal(result.interrupted) if result.interrupted else EXIT_DONE


def _tell(settings: Recipe, result: "TrainingResult", report: Path | None, as_json: bool) -> None:
    """Print what a run came to, and commands that work on it from here."""
    if as_json:
        print(json.dumps(_as_dict(result, report), indent=2))
    elif not result.interrupted:
        print("\n" + pairs(summary(result, report)))
        print("\n".join(["", "Next:", *(f"  {each}" for each in _next(settings, result.run))]))


def _next(settings: Recipe, folder: Path) -> list[str]:
    """Commands that work on the run from here."""
    from mixerkit.data.parquet import has_parquet
    from mixerkit.data.shards import has_shards

    photos = Path(settings.data.source)
    has_files = photos.is_dir() and not has_shards(photos) and not has_parquet(photos)
    predict = [command("predict", photos, "--model", folder)] if has_files else []
    others = [command("export", folder), command("info", folder)]
    return [command("evaluate", folder), *predict, *others]


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
    stored = _run_recipe(resumed) if resumed else recipe_named(name or next(iter(RECIPES)))
    base, label = stored, value_of("--model", words)
    if label:
        base = replace(base, model=_in_place_of(base.model, label))
    if "--shrink" in words:
        if resumed:
            raise UserError("--shrink starts a new run, --resume goes on with one: leave one out.")
        base = shrunk(base)
    default = Train(base, recipe=name)
    given = parse(Train, words, command="train", examples=EXAMPLES, default=default)
    return _only_moved(given, stored) if resumed else given


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

    with RunFolder.open(Path(folder), writing=launch.rank() == 0) as run:
        return run.recipe()


def _only_moved(given: Train, stored: Recipe) -> Train:
    """A run is resumed as it was started: another setting would make it another run. Only where
    its images are now may be said."""
    settings = given.settings
    place = replace(settings.data, source=stored.data.source, root=stored.data.root)
    same_place = replace(settings, data=place)
    changed = [
        f.name for f in fields(Recipe) if getattr(same_place, f.name) != getattr(stored, f.name)
    ]
    if changed or given.out:
        what = ", ".join(f"--{name}" for name in [*changed, *(["out"] if given.out else [])])
        raise UserError(
            f"A resumed run keeps its recipe and folder, found {what}: leave that out, or start "
            f"a new run from {given.resume} with `mixer train {given.resume} --out FOLDER …`."
        )
    if settings == stored:
        return given
    return replace(given, settings=replace(settings, data=located(settings.data)))


def dry_run(settings: Recipe, as_json: bool) -> int:
    """Print what a run would do and cost."""
    from mixerkit.training.plan import plan

    planned = plan(settings)
    if as_json:
        print(json.dumps(planned.as_dict(), indent=2))
    else:
        print(f"{settings.name}: what would happen (nothing was written)\n")
        print(pairs(planned.rows()))
    return EXIT_DONE


def show_division(settings: Recipe, devices: int, memory: float, as_json: bool) -> int:
    """Print how the memory of a step divides, and what fits."""
    from mixerkit.training.division import divide

    division = divide(settings, devices, memory)
    if as_json:
        print(json.dumps(division.as_dict(), indent=2))
        return EXIT_DONE
    print(
        f"{settings.name} on {plural(devices, 'device')} of {memory:g} GiB: "
        f"{division.parameters:,} parameters, {division.per_device} of {division.batch_size:,} "
        f"images on each (nothing was built or written)\n"
    )
    head = ("strategy", "blocks", "micro-batches", "weights", "gradients", "optimiser", "average")
    rows: list[Sequence[str]] = [(*head, "gathered", "casts", "activations", "GiB", "")]
    for share in division.shares:
        parts = (share.weights, share.gradients, share.optimizer, share.average, share.gathered)
        figures = (*parts, share.casts, share.activations, share.total)
        rows.append(
            (
                share.strategy if devices > 1 else "one process",
                "computed twice" if share.activation_checkpointing else "kept",
                f"{share.accumulation} of {division.micro_batch(share)}",
                *(f"{figure / 2**30:.2f}" for figure in figures),
                "fits" if division.fits(share) else "too large",
            )
        )
    print(table(rows, left=2))
    best = division.best
    if best is None:
        print("\nNone fits, with a tenth of the memory set aside: take more or larger devices.")
    else:
        print(f"\nTake: {best.settings() if devices > 1 else best.settings_alone()}")
    return EXIT_DONE


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
