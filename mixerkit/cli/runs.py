"""`mixer runs`: what is in a folder of runs, whether a run is sound, and its report again."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.program import command, program
from mixerkit.cli.text import percent, plural, readable, size, table
from mixerkit.errors import EXIT_DONE, EXIT_FAILED, UserError

EXAMPLES = """\
  mixer runs
  mixer runs list experiments --json
  mixer runs verify runs/fashion-demo                 # exit code 1 when something is damaged
  mixer runs report runs/fashion-demo
"""


@dataclass(frozen=True)
class Runs:
    """List the run folders in a folder, or where there are none those further below, as of a study:
    how far each is, how good, and why it stopped. `verify`
    reads every file of one run, says what is damaged or lost, what mends it and where a resume
    would go on, and changes nothing. `report` writes the report.html of one run again.

    Exit code: 0 done, and sound; 1 `verify` found damage; 2 bad input, such as no run."""

    action: tyro.conf.Positional[Literal["list", "verify", "report"]] = "list"
    """`list` a folder of runs, `verify` a run, or write the `report` of a run."""
    folder: Annotated[Word, shown_as("[FOLDER]")] = ""
    """Folder of runs (./runs if not given); for `verify` and `report`, the run."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer runs` with `words`."""
    given = parse(Runs, words, command="runs", examples=EXAMPLES)
    if given.action != "list" and not given.folder:
        raise UserError(f"Which run? `mixer runs {given.action} RUN`.")
    if given.action == "report":
        return _report(given)
    if given.action == "verify":
        return _verify(given)
    root = Path(given.folder or "runs")
    if given.folder and not root.is_dir():
        raise UserError(f"No folder {root}.")
    from mixerkit.checkpoint.runs import list_runs

    found = list_runs(root) if root.is_dir() else []
    if given.json:
        print(json.dumps(found, indent=2, default=str))
    elif found:
        _show(found, root)
    else:
        print(f"No runs in {root}. `{command('demo')}` makes one.")
    return EXIT_DONE


def _show(found: list[dict[str, Any]], root: Path) -> None:
    """A table of runs, what stopped or damaged them, and where there are more."""
    from mixerkit.checkpoint.runs import further_runs

    print(table([HEADINGS, *(_row(run) for run in found)], left=3))
    for run in found:
        if run["stopped"]:
            print(readable(f"{run['path']} stopped: {run['stopped']}"))
        if run["problem"]:
            print(_suggesting(f"{run['path']}: {run['problem']}"), file=sys.stderr)
    if any(Path(run["path"]).parent == root for run in found):
        for path, count in further_runs(root).items():
            print(f"{plural(count, 'more run')} below {path}: {command('runs', 'list', path)}")


def _report(given: Runs) -> int:
    from mixerkit.checkpoint.run import RunFolder
    from mixerkit.insight.report import write_report

    with RunFolder.open(Path(given.folder)) as run:
        path = write_report(run)
    print(json.dumps({"report": str(path)}) if given.json else path)
    return EXIT_DONE


def _verify(given: Runs) -> int:
    from mixerkit.checkpoint.verification import verify_run

    found = verify_run(Path(given.folder))
    if given.json:
        print(json.dumps({"run": given.folder, "sound": found.sound} | asdict(found), indent=2))
    else:
        lines = table([(part.name, size(part.size)) for part in found.parts]).splitlines()
        for line, part in zip(lines, found.parts, strict=True):
            print(f"{line}  {_suggesting(_found(part, found.best_step))}")
        print(found.resume)
        if found.mends:
            print(f"To mend it: {command('train', '--resume', given.folder)}")
    return EXIT_DONE if found.sound else EXIT_FAILED


def _suggesting(message: str) -> str:
    """`message` for a terminal, with its commands (`mixer …`) such as work from here."""
    return readable(message).replace("`mixer ", f"`{program()} ")


def _found(part: Any, best_step: int | None) -> str:
    """What is wrong with a part of a run; or "sound", where that can be told, and what is known."""
    if part.problem:
        return str(part.problem)
    best = ", the best" if part.step is not None and part.step == best_step else ""
    held_out = f"held-out {percent(part.validation)}{best}" if part.validation is not None else ""
    return "; ".join(filter(None, ("sound" if part.checked else "", part.note, held_out)))


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
