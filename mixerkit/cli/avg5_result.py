"""What `mixer evaluate --protocol avg5` found, and what became of its trials."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixerkit.cli.avg5_text import as_json, as_text, left_out_text
from mixerkit.cli.text import plural
from mixerkit.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from mixerkit.cli.avg5 import Avg5
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer_broken import Broken
    from mixerkit.study.transfer_paper import Published
    from mixerkit.study.transfer_plan import Planned
    from mixerkit.study.transfer_suite import Suite


def about(given: "Avg5", suite: "Suite", folder: Path, notes: list[str]) -> dict[str, Any]:
    """What a plan and a result both begin with. `steps`: of every trial of a rehearsal."""
    return {
        "model": given.model,
        "suite": suite.name,
        "folder": str(folder),
        "steps": given.steps,
        "batch_size": given.batch_size,
        "notes": notes,
    }


def tell(
    given: "Avg5",
    suite: "Suite",
    plans: "list[Planned]",
    choose: "StudyFolder",
    last: "StudyFolder",
) -> int:
    """The table, beside the paper's figures where the model is one of its own, and all images that
    were left out."""
    from mixerkit.study.transfer import table_of, tie

    paper = paper_of(given, suite)
    found = [_left_out(plan, choose, last) for plan in plans]
    withheld = {
        one.plan.task.name: why for one in found if (why := one.why_withheld(given.skip_broken))
    }
    measured = {one.plan.task.name: one.counts() for one in found}
    rows = [
        row | {"published": paper.figures.get(row["task"])} | measured.get(row["task"], {})
        for row in table_of(suite, choose, last, withheld)
    ]
    ties = [tie(plan.task, choose, plan.held_out) for plan in plans]
    batches = [plan.note for plan in plans]
    if given.json:
        notes = [*filter(None, [*batches, *ties, paper.note])]
        unreadable = [{"task": one.plan.task.name} | row for one in found for row in one.rows]
        content = about(given, suite, choose.path.parent, notes)
        print(as_json(content | {"unreadable": unreadable}, rows))
    else:
        blocks = [_title(given, choose.path.parent), as_text(rows, bool(paper.figures))]
        blocks += filter(None, ["\n".join(filter(None, ties)), paper.note])
        blocks += [
            left_out_text(one.plan.task.title, broken)
            for one in found
            for broken in (one.test, one.training)
            if broken.found
        ]
        print("\n" + "\n\n".join(blocks))
    return _failures(choose, rows)


def _title(given: "Avg5", folder: Path) -> str:
    """The model, and that it is a rehearsal where it is one."""
    if not given.steps:
        return given.model
    return f"{given.model}: a rehearsal, trials of {plural(given.steps, 'step')}, in {folder}"


@dataclass(frozen=True)
class LeftOut:
    """Images of a task that its trials left out; `rows`: of all of them, for `--json`."""

    plan: "Planned"
    rows: list[dict[str, Any]]
    test: "Broken"
    training: "Broken"

    def why_withheld(self, skip_broken: bool) -> str:
        """Why the task's test accuracy is not given; empty where it is."""
        share = self.plan.task.recipe.data.max_unreadable
        said = [one.withheld(share, skip_broken) for one in (self.test, self.training)]
        return " ".join(filter(None, said))

    def counts(self) -> dict[str, Any]:
        """For a row of `--json`."""
        return {
            "test_images": self.test.count - len(self.test.found),
            "unreadable": {one.kind: len(one.found) for one in (self.test, self.training)},
        }


def _left_out(plan: "Planned", choose: "StudyFolder", last: "StudyFolder") -> LeftOut:
    from mixerkit.study.transfer_broken import TEST, TRAINING, left_out, of_kind

    trials = [
        row
        for folder in (choose, last)
        for one, row in folder.rows()
        if one.levels["task"] == plan.task.name
    ]
    rows = left_out(trials, plan.test_name)
    test, training = of_kind(rows, TEST, plan.test_images), of_kind(rows, TRAINING, plan.images)
    return LeftOut(plan, rows, test, training)


def _failures(choose: "StudyFolder", rows: list[dict[str, Any]]) -> int:
    """Name the trials that failed, and figures that are not given; the exit code."""
    failed = [row for row in rows if row.get("error")]
    withheld = [row for row in rows if row.get("withheld")]
    left_out = [row for _, row in choose.rows() if "error" in row]
    for row in left_out:
        print(f"left out: {row['configuration']}: {row['error']}", file=sys.stderr)
    for row in failed:
        print(f"failed: {row['title']}: {row['error']}", file=sys.stderr)
    for row in withheld:
        print(f"withheld: {row['title']}: {row['withheld']}", file=sys.stderr)
    if failed or left_out:
        print("--again tries again what became NaN.", file=sys.stderr)
    return EXIT_FAILED if failed or withheld else EXIT_DONE


def paper_of(given: "Avg5", suite: "Suite") -> "Published":
    """What the paper has for the same; nothing for tasks of your own."""
    from mixerkit.study.transfer_paper import NOTHING, published

    return NOTHING if given.suite else published(given.model, suite)
