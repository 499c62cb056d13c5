"""What `mixer evaluate --protocol avg5` would train, and what it found, as text or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixerkit.cli.program import command
from mixerkit.cli.text import percent, plural, short, table

if TYPE_CHECKING:
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer_plan import Planned


def plan_text(plans: "Sequence[Planned]", seconds: float) -> str:
    """The trials, what they cost, and how long they would take here."""
    from mixerkit.training.plan import duration_text

    lines = [("task", "images", "test", "trials", "steps each", "batch", "MACs of training")]
    lines += [
        (
            plan.task.title, f"{plan.images:,}", f"{plan.test_images:,}", str(plan.trials),
            f"{plan.steps:,}", str(plan.task.recipe.batch_size), short(plan.macs),
        )
        for plan in plans
    ]  # fmt: skip
    trials, macs = sum(plan.trials for plan in plans), sum(plan.macs for plan in plans)
    notes = [plan.note for plan in plans if plan.note]
    return "\n".join(
        [
            table(lines),
            *notes,
            "",
            f"{plural(trials, 'trial')}, {short(macs)} multiply-adds: about "
            f"{duration_text(seconds)} of training on this machine, by the speed of a few steps on "
            f"noise; reading images and measuring come on top (nothing was written)",
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
                percent(test) if test is not None else "failed",
                *(beside if paper else ()),
            )
        )
    return table(lines)


def next_text(path: Path, last: "StudyFolder") -> str:
    """Commands that work on the models from here."""
    models = [last.run_of(one) for one, row in last.rows() if "error" not in row]
    tries = [command("runs", "list", path), *(command("evaluate", model) for model in models[:1])]
    return "\n".join(["", "Next:", *(f"  {each}" for each in tries)])
