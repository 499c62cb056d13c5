"""What `mixer evaluate --protocol avg5` would train, and what it found, as text or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixerkit.cli.evaluation_text import left_out
from mixerkit.cli.program import command
from mixerkit.cli.text import percent, plural, short, size, table

if TYPE_CHECKING:
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer_broken import Broken
    from mixerkit.study.transfer_plan import Planned
    from mixerkit.study.transfer_time import Expected


def plan_text(plans: "Sequence[Planned]", time: "Expected") -> str:
    """The trials, what they cost, and how long they would take here."""
    from mixerkit.training.plan import duration_text

    lines = [
        ("task", "images", "held out", "test", "trials", "steps each", "batch", "MACs of training")
    ]
    lines += [
        (
            plan.task.title, f"{plan.images:,}", f"{plan.held_out:,}", f"{plan.test_images:,}",
            str(plan.trials), f"{plan.steps:,}", str(plan.task.recipe.batch_size), short(plan.macs),
        )
        for plan in plans
    ]  # fmt: skip
    trials, macs = sum(plan.trials for plan in plans), sum(plan.macs for plan in plans)
    notes = [note for plan in plans for note in plan.notes]
    seconds = time.training + time.measuring
    return "\n".join(
        [
            table(lines),
            *notes,
            "",
            f"{plural(trials, 'trial')}, {short(macs)} multiply-adds: about "
            f"{duration_text(seconds)} of training and measuring on this machine, by the speed of "
            f"a few steps on noise; reading images and writing "
            f"{plural(time.checkpoints, 'checkpoint')} of up to {size(time.checkpoint_bytes)} come "
            f"on top (nothing was written)",
        ]
    )


def as_json(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What a plan and a result both print for `--json`."""
    return json.dumps(about | {"rows": rows}, indent=2, ensure_ascii=False)


def as_text(rows: list[dict[str, Any]], paper: bool) -> str:
    """The table, with what the paper has beside ours, and the difference in points."""
    lines = [("task", "rate", "held out", "test", *(("paper", "difference") if paper else ()))]
    for row in rows:
        test, published = row["test_accuracy"], row["published"]
        beside = ("", "")
        if published is not None and test is not None:
            beside = (f"{published:.2f} %", f"{100 * test - published:+.2f}")
        lines.append(
            (
                row["title"],
                f"{row['rate']:g}" if row["rate"] else "",
                percent(row["held_out_accuracy"]),
                percent(test) if test is not None else _why_none(row),
                *(beside if paper else ()),
            )
        )
    return table(lines)


def _why_none(row: dict[str, Any]) -> str:
    """In the place of a test accuracy."""
    return "withheld" if row.get("withheld") else "failed"


def left_out_text(title: str, broken: "Broken") -> str:
    """How many of a task's images were left out; the first few by name."""
    of = plural(broken.count, f"{broken.kind} image")
    return left_out([one.row() for one in broken.found], of, f"{title}: ")


def next_text(path: Path, last: "StudyFolder") -> str:
    """Commands that work on the models from here."""
    models = [last.run_of(one) for one, row in last.rows() if "error" not in row]
    tries = [command("runs", "list", path), *(command("evaluate", model) for model in models[:1])]
    return "\n".join(["", "Next:", *(f"  {each}" for each in tries)])
