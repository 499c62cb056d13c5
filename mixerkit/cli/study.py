"""`mixer study`: many runs that differ in what is studied, and their averages."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mixerkit.cli import claims
from mixerkit.cli.arguments import Flag, Word, leading_word, parse, shown_as
from mixerkit.cli.program import command
from mixerkit.cli.running import RUNS
from mixerkit.cli.text import percent, plural, short, table
from mixerkit.errors import EXIT_DONE, EXIT_FAILED, UserError, exit_code_for_signal, unknown

if TYPE_CHECKING:
    from mixerkit.study.grid import Study as Plan
    from mixerkit.study.runner import StudyFolder, Work

EXAMPLES = """\
  mixer study                    # what there is
  mixer study token-mixers --dry-run
  mixer study token-mixers
  mixer study my-study.yaml --folder /shared/my-study    # on as many machines as there are
  mixer study token-mixers --look --json
  mixer study token-mixers --again
  mixer study claims    # the paper's claims beside what was measured: `mixer study claims --help`
"""

SWITCHES = ("--dry-run", "--look", "--again", "--json")


@dataclass(frozen=True)
class Study:
    """Train every configuration of STUDY, a name or a YAML file, and average over seeds.

    Each is a run folder of its own. The same command in another terminal, or on another machine
    that sees the folder, takes part; after an interruption it goes on. Exit code: 0 done, 1 when
    some runs failed, 2 bad input, 128 + its number after a signal."""

    study: Annotated[Word, shown_as("STUDY")] = ""
    """Name of a study, or a YAML file; it comes first."""
    folder: Annotated[str, shown_as("FOLDER")] = ""
    """Where its runs are; runs/studies/NAME if not given."""
    out: Annotated[str, shown_as("PATH")] = ""
    """Results file with all averages, and figures beside it; FOLDER/results.json if not given."""
    dry_run: Flag = False
    """List the configurations and what they cost; write nothing."""
    look: Flag = False
    """Show what is known so far; train nothing."""
    again: Flag = False
    """Try again what failed."""
    json: Flag = False
    """Print the rows as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer study` with `words`."""
    name = leading_word(words, SWITCHES)
    if name == "claims":
        return claims.main([word for word in words if word != "claims"])
    given = parse(Study, words, command="study", examples=EXAMPLES, default=Study(name))
    if not name:
        return show_studies(given)
    if sum((given.dry_run, given.look, given.again)) > 1:
        raise UserError("--dry-run, --look and --again exclude one another.")
    if given.out and (given.dry_run or given.look):
        raise UserError("--out is written by the study itself: leave --dry-run or --look out.")
    plan = study_named(name)
    if given.dry_run:
        return show_plan(plan, given.json)
    from mixerkit.study.runner import StudyFolder

    folder = StudyFolder(plan, Path(given.folder) if given.folder else RUNS / "studies" / plan.name)
    if not given.look:
        return _work(folder, given)
    if not folder.is_begun():
        raise UserError(f"{folder.path} holds no study yet: start it without --look.")
    return _tell(folder, given, {})


def show_studies(given: Study) -> int:
    """What there is to choose from."""
    from mixerkit.study.named import STUDIES

    if given != Study():
        raise UserError(f"Which study? It comes first, one of {', '.join(STUDIES)} or a YAML file.")
    lines = [("study", "runs", "what it asks")]
    for name, build in STUDIES.items():
        asks = " ".join((build.__doc__ or "").split()).partition(":")[0].rstrip(".")
        lines.append((name, str(len(build().configurations())), asks))
    print(table(lines, left=3))
    print("\nOr a YAML file (docs/token-mixers.md shows one), or claims: what came of the paper's.")
    return EXIT_DONE


def study_named(name: str) -> "Plan":
    """The study of that name or in that file."""
    from mixerkit.study.grid import read_study
    from mixerkit.study.named import STUDIES

    if name in STUDIES:
        return STUDIES[name]()
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return read_study(path)
    raise unknown("study", name, STUDIES)


def show_plan(plan: "Plan", as_json: bool) -> int:
    """What would be trained, and how much that is."""
    from mixerkit.study.peers import cost_of

    rows: list[dict[str, Any]] = []
    for one in plan.configurations():
        parameters, macs = cost_of(one.peer, one.recipe.model)
        about = {"parameters": parameters, "macs": macs, "duration": one.recipe.duration}
        rows.append({"configuration": one.name, "peer": one.peer, "levels": one.levels} | about)
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return EXIT_DONE
    lines = [("configuration", "parameters", "MACs", "duration")]
    lines += [
        (row["configuration"], f"{row['parameters']:,}", short(row["macs"]), row["duration"])
        for row in rows
    ]
    print(f"{plan.name}: {plural(len(rows), 'run')} (nothing was written)\n")
    print(table(lines))
    return EXIT_DONE


def _work(folder: "StudyFolder", given: Study) -> int:
    """Take part, and say what came of it."""
    from mixerkit.cli.progress import Console

    console = Console(sys.stderr if given.json else sys.stdout)
    folder.begin()
    if given.again:
        console.say(f"{plural(folder.forget_failures(), 'failed run')} to try again")
    work = take_part(
        folder, f"study: {folder.study.name}, {len(folder.configurations)} runs", console
    )
    code = _tell(folder, given, work.given_up)
    out = Path(given.out) if given.out else folder.path / "results.json"
    if not work.stopped:
        _publish(folder, out, given, console)
    return exit_code_for_signal(work.stopped) if work.stopped else code


def take_part(folder: "StudyFolder", what: str, console: Any) -> "Work":
    """Say `what` is done and where, and do what is left of it."""
    from mixerkit.study.runner import Work
    from mixerkit.training.interrupt import second_ends_at_once

    folder.begin()
    console.say(f"{what}, {len(folder.rows())} done, in {folder.path}")
    work = Work(folder, console.say, Quiet(console))
    with second_ends_at_once():
        work.do()
    return work


class Quiet:
    """Draws a run's progress where there is a terminal; of what a run says, passes on only that it
    stops: all of it would be thousands of lines."""

    def __init__(self, console: Any) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """One line of a run."""
        if line.startswith("Stopping"):
            self.console.say(line)

    def progress(self, now: Any) -> None:
        """Redraw the bar."""
        if self.console.live:
            self.console.progress(now)


def _tell(folder: "StudyFolder", given: Study, given_up: dict[str, str]) -> int:
    """Print what is known, write it where it was asked for, and end."""
    from mixerkit.study.arms import averaged

    rows = folder.rows()
    failed = [row for _, row in rows if "error" in row]
    arms = averaged(rows)
    console: Any = sys.stderr if given.json else sys.stdout
    if given.json:
        print(json.dumps([row for _, row in rows], indent=2, ensure_ascii=False))
    elif arms:
        print(f"\n{as_text(arms)}")
    for row in failed:
        print(f"failed: {row['configuration']}: {row['error']}", file=sys.stderr)
    for name, why in given_up.items():
        print(f"given up here: {name}: {why}", file=sys.stderr)
    left = len(folder.configurations) - len(rows)
    if left:
        words = [given.study, *_said("--folder", given.folder), *_said("--out", given.out)]
        again = command("study", *words)
        print(f"{plural(left, 'run')} left. Go on with:\n  {again}", file=console)
    return EXIT_FAILED if failed or given_up else EXIT_DONE


def _publish(folder: "StudyFolder", out: Path, given: Study, console: Any) -> None:
    """Write results and figures, unless they are there, or another process is at it."""
    from mixerkit.checkpoint.lock import Taken
    from mixerkit.study.publishing import is_due, publish

    if not is_due(folder, out):
        return
    place = _said("--folder", given.folder)
    words = ["mixer", "study", given.study, *place, *_said("--out", given.out)]
    console.say("timing every arm's model, one after the other …")
    try:
        written = publish(folder, out, shlex.join(words))
    except Taken:
        console.say("another process does that, and writes the results")
        return
    for path in written:
        console.say(f"written: {path}")


def _said(option: str, value: str) -> list[str]:
    return [option, value] if value else []


def as_text(arms: list[dict[str, Any]]) -> str:
    """The arms as a table, the most accurate first."""
    from mixerkit.study.arms import ranked_by

    figure, factors = ranked_by(arms), list(arms[0]["levels"])
    head = (*(name.rpartition(".")[2] for name in factors), figure.replace("_", " "), "runs")
    lines = [(*head, "parameters", "MACs", "seconds")]
    for arm in sorted(arms, key=lambda arm: -(arm[figure] or 0)):
        accuracy, half = arm[figure], arm[f"{figure}_half_width"]
        shown = percent(accuracy) if accuracy is not None else "–"
        lines.append(
            (
                *arm["levels"].values(),
                shown + (f" ± {100 * half:.2f}" if half is not None else ""),
                str(arm["runs"]),
                f"{arm['parameters']:,}",
                short(arm["macs"]),
                f"{arm['seconds']:.0f}",
            )
        )
    return table(lines, left=max(1, len(factors)))
