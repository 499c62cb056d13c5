"""What the small files of a run hold: their names, and checks of their form where they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.rows import read_rows, read_usable_rows
from mixerkit.errors import UserError
from mixerkit.spec.recipe import MOST_THREADS

CHOICES, EVALUATION, STOPPED = "choices.json", "evaluation.json", "stopped.json"
METRICS, TIMING, QUARANTINE = ROWS = ("metrics.jsonl", "timing.jsonl", "quarantine.jsonl")
START = "start"
"""Folder in a run of the run that it grows from, where there is one."""

Kinds = tuple[type, ...]
WHOLE: Kinds = (int,)
NUMBER: Kinds = (int, float)
TEXT: Kinds = (str,)
TEXTS: Kinds = (list,)
FLAG: Kinds = (bool,)
WORDS = {
    WHOLE: "a whole number",
    NUMBER: "a number",
    TEXT: "text",
    TEXTS: "a list of texts",
    FLAG: "true or false",
}
LARGEST = {int: 2**63, float: 2.0**128, bool: 2}
"""Steps, and whatever else is counted, are below the first; what is measured is below the second,
as every float32 is, such as the loss of a run that diverges."""
Form = Mapping[str, Kinds]

FIGURES: Form = dict.fromkeys(
    ("epoch", "loss", "learning_rate", "gradient_norm", "top1", "top5", "nll", "ece"), NUMBER
)
OF_METRICS: Form = {"step": WHOLE, "split": TEXT}
OF_TIMING: Form = {"step": WHOLE, "seconds": NUMBER}
SPEEDS: Form = {"images_per_second": NUMBER, "waiting": NUMBER}
OF_QUARANTINE: Form = {"split": TEXT, "index": WHOLE, "file": TEXT, "reason": TEXT}
OF_CHOICES: Form = {
    "threads": WHOLE,
    "compile": FLAG,
    "total_steps": WHOLE,
    "images": TEXT,
    "classes": TEXTS,
    "contents": TEXTS,
}
OF_STOPPED: Form = {"why": TEXT, "when": TEXT}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of metrics.jsonl; the first that is of another form is a `UserError`."""
    rows = read_rows(path)
    for number, row in enumerate(rows, start=1):
        problem = _problem(row, OF_METRICS, FIGURES)
        if problem:
            raise UserError(f"{path}, line {number}: {problem}. Restore the file from a copy.")
    return rows


def read_timings(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Rows of timing.jsonl, and what there is to say of those that were passed over."""
    return read_usable_rows(path, lambda row: _problem(row, OF_TIMING, SPEEDS))


def read_quarantine(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Rows of quarantine.jsonl, and what there is to say of those that were passed over."""
    return read_usable_rows(path, _quarantine_problem)


def _quarantine_problem(row: dict[str, Any]) -> str:
    problem = _problem(row, OF_QUARANTINE)
    if not problem and row["index"] < 0:
        return f"expected at least 0 under 'index', found {row['index']}"
    return problem


def read_choices(path: Path) -> dict[str, Any]:
    """choices.json; an absent file holds none."""
    if not path.exists():
        return {}
    choices = read_json(path)
    problem = _problem(choices, {}, OF_CHOICES)
    if not problem and not 1 <= choices.get("threads", 1) <= MOST_THREADS:
        problem = f"expected 1 to {MOST_THREADS} under 'threads', found {choices['threads']}"
    if problem:
        raise UserError(f"{path}: {problem}. Restore it from a copy.")
    return choices


def read_stopped(path: Path) -> str:
    """Why and when a run stopped, in words."""
    found = read_json(path)
    problem = _problem(found, OF_STOPPED)
    if problem:
        raise UserError(f"{path}: {problem}. A resume removes it.")
    return f"{found['why']} ({found['when']})"


def saved_step(path: Path) -> int | None:
    """The step of the newest checkpoint, by timing.jsonl, whose rows of saves have no speed; None
    where it tells of none. Where a run goes back, the last such row is of where it stands then."""
    saved = [row["step"] for row in read_timings(path)[0] if "images_per_second" not in row]
    return saved[-1] if saved else None


def _problem(found: Mapping[str, Any], required: Form, optional: Form | None = None) -> str:
    """What is missing or of another kind; empty when nothing is."""
    missing = next((key for key in required if key not in found), None)
    if missing:
        return f"expected {WORDS[required[missing]]} under '{missing}', found nothing"
    for key, kinds in {**required, **(optional or {})}.items():
        if key in found and not _is(found[key], kinds):
            return f"expected {WORDS[kinds]} under '{key}', found {found[key]!r:.40}"
    return ""


def _is(value: Any, kinds: Kinds) -> bool:
    """Whether `value` is of one of `kinds`; a flag is no number, and lists hold texts."""
    if type(value) is list:
        return kinds == TEXTS and all(type(item) is str for item in value)
    return type(value) in kinds and (type(value) is str or abs(value) < LARGEST[type(value)])
