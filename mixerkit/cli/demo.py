"""`mixer demo`: train a small Mixer on real photographs, and leave a run worth looking at."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mixerkit.cli.arguments import Flag, parse, shown_as
from mixerkit.cli.program import command, from_here
from mixerkit.cli.running import RUNS, free_folder, run, run_where_free
from mixerkit.cli.text import clock, pairs, percent
from mixerkit.errors import EXIT_DONE, RunFailed, exit_code_for_signal
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import variant_of
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.recipes import recipe
from mixerkit.spec.strict import to_dict

EXAMPLES = """\
  mixer demo
  mixer demo --out my-first-run
"""

RECIPE = "fashion-demo"
PHOTOS = Path(__file__).parents[2] / "examples" / "fashion"  # in a clone, not in a wheel


@dataclass(frozen=True)
class Demo:
    """Train a small Mixer on Fashion-MNIST, 70 000 photographs of clothing, measure it on the test
    images and write a report. The photographs are looked for on this machine first, and
    downloaded (30 MB) if they are not there."""

    out: Annotated[str, shown_as("FOLDER")] = ""
    """Run folder (if not given, runs/fashion-demo, or the first free one of -2, -3, …)."""
    results: Annotated[str, shown_as("PATH")] = ""
    """Also write accuracy and time to this results file, such as results/demo.json."""
    json: Flag = False
    """Print the result as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer demo` with `words`."""
    started = time.perf_counter()
    given = parse(Demo, words, command="demo", examples=EXAMPLES)
    settings = recipe(RECIPE)
    console = sys.stderr if given.json else sys.stdout
    print(_announcement(settings, asked=bool(given.out)), file=console, flush=True)
    if given.out:
        result, report = run(settings, Path(given.out), resume=False, console=console)
    else:
        result, report = run_where_free(settings, RECIPE, console)
    folder = result.run
    if result.interrupted:
        return exit_code_for_signal(result.interrupted)
    if result.test is None:
        raise RunFailed(f"{folder} has no test accuracy: the recipe {RECIPE} must have one.")
    row = {
        "test_accuracy": result.test.top1,
        "seconds": round(time.perf_counter() - started, 2),
        "parameters": cost(settings.model).parameters,
        "training_seconds": round(result.seconds, 2),
        "images_per_second": round(result.images_per_second, 1),
    }
    if given.results:
        _write_results(Path(given.results), settings, row)
    if given.json:
        print(json.dumps(row | {"run": str(folder), "report": report and str(report)}, indent=2))
    else:
        print(_conclusion(row, result.test.samples, folder, report))
    return EXIT_DONE


def _announcement(settings: Recipe, asked: bool) -> str:
    taken, folder = RUNS / settings.name, free_folder(settings, RECIPE)
    note = "" if asked or folder == taken else f"{taken} is taken, so this run is {folder}.\n"
    return (
        f"{note}A Mixer {variant_of(settings.model)} of {cost(settings.model).parameters:,} "
        f"parameters learns to tell ten kinds of clothing apart,\nfrom photographs of 28 × 28 "
        f"pixels, in {settings.duration}.\n"
    )


def _conclusion(row: dict[str, Any], samples: int, folder: Path, report: Path | None) -> str:
    accuracy = percent(row["test_accuracy"])
    lines = [
        ("test accuracy", f"{accuracy} of {samples:,} photographs it has never seen"),
        ("time", f"{clock(row['seconds'])} from start to report"),
        ("model", str(folder / "model")),
    ]
    if report:
        lines.append(("report", f"{report} (open it in a browser)"))
    tries = [command("evaluate", folder), command("info", folder)]
    tries.insert(0, _prediction(folder))
    return "\n".join(["", pairs(lines), "", "Try next:", *(f"  {each}" for each in tries)])


def _prediction(folder: Path) -> str:
    """A prediction that works from here: on the clone's photographs, where there is a clone."""
    if PHOTOS.is_dir():
        return command("predict", from_here(PHOTOS), "--model", folder)
    return command("runs")


def _write_results(path: Path, settings: Recipe, row: dict[str, Any]) -> None:
    from mixerkit.results import write_results

    write_results(
        path,
        name="demo",
        command=f"mixer demo --results {path}",
        settings={"recipe": to_dict(settings)},
        rows=[row],
    )
