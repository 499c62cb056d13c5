"""`mixer runs`: what is in a folder of runs, and a run's report written again."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.program import command
from mixerkit.cli.text import percent, table
from mixerkit.errors import EXIT_DONE, UserError

EXAMPLES = """\
  mixer runs
  mixer runs list experiments --json
  mixer runs report runs/fashion-demo
"""


@dataclass(frozen=True)
class Runs:
    """List the run folders in a folder: how far each is, and how good. `report` writes the
    report.html of one run again."""

    action: tyro.conf.Positional[Literal["list", "report"]] = "list"
    """`list` a folder of runs, or write the `report` of a run."""
    folder: Annotated[Word, shown_as("[FOLDER]")] = ""
    """Folder of runs (./runs if not given); for `report`, the run."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer runs` with `words`."""
    given = parse(Runs, words, command="runs", examples=EXAMPLES)
    if given.action == "report":
        return _report(given)
    root = Path(given.folder or "runs")
    if given.folder and not root.is_dir():
        raise UserError(f"No folder {root}.")
    from mixerkit.checkpoint.run import list_runs

    found = list_runs(root) if root.is_dir() else []
    if given.json:
        print(json.dumps(found, indent=2, default=str))
    elif found:
        print(table([HEADINGS, *(_row(run) for run in found)], left=3))
        for run in found:
            if run["problem"]:
                print(f"{run['path']}: {run['problem']}", file=sys.stderr)
    else:
        print(f"No runs in {root}. `{command('demo')}` makes one.")
    return EXIT_DONE


def _report(given: Runs) -> int:
    if not given.folder:
        raise UserError("Which run? `mixer runs report RUN`.")
    from mixerkit.checkpoint.run import RunFolder
    from mixerkit.insight.report import write_report

    with RunFolder.open(Path(given.folder)) as run:
        path = write_report(run)
    print(json.dumps({"report": str(path)}) if given.json else path)
    return EXIT_DONE


HEADINGS = ("run", "state", "recipe", "step", "held-out", "test")


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    """One run; "–" for what is not known, all of it when the run is damaged."""
    total = run["total_steps"]
    step = "–" if run["step"] is None else f"{run['step']:,}" + (f" of {total:,}" if total else "")
    return (
        str(run["path"]),
        run["state"],
        run["recipe"] or "–",
        step,
        _share(run["best_validation"]),
        _share(run["test_accuracy"]),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)
