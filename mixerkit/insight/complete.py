"""Whether a run's files hold every figure that its report is made of."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mixerkit.errors import UserError

MEASURED = ("epoch", "top1", "top5", "nll", "ece")
NEEDED = {"validation": MEASURED, "test": MEASURED}
"""Keys of a row of metrics.jsonl, by its split; others need an epoch."""
TIMED = ("step", "seconds", "images_per_second", "waiting")

EVALUATED = ("split", "figures", "class_names", "per_class", "confusion", "mistakes")
FIGURES = ("samples", "top1", "top5", "nll", "ece")
OF_A_CLASS = ("name", "samples", "recall", "precision")
OF_A_MISTAKE = ("image", "true", "predicted", "probability")


def check_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise `UserError` for the first row of metrics.jsonl that lacks something."""
    for number, row in enumerate(rows, start=1):
        _check(f"{path}, line {number}", row, NEEDED.get(row["split"], ("epoch",)))


def check_timings(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The same of timing.jsonl, where rows of a save have no speed."""
    for row in rows:
        if "images_per_second" in row:
            _check(f"{path}, the row of step {row['step']:,}", row, TIMED)


def check_evaluation(path: Path, content: Mapping[str, Any]) -> None:
    """Raise `UserError` where evaluation.json lacks something."""
    _check(str(path), content, EVALUATED)
    _check(f"{path}, figures", content["figures"], FIGURES)
    for name, keys in (("per_class", OF_A_CLASS), ("mistakes", OF_A_MISTAKE)):
        for number, row in enumerate(content[name], start=1):
            _check(f"{path}, {name} {number}", row, keys)


def _check(where: str, found: Any, keys: Iterable[str]) -> None:
    missing = [key for key in keys if not isinstance(found, Mapping) or key not in found]
    if missing:
        raise UserError(
            f"{where}: the report needs {', '.join(missing)} there, and found none. Restore the "
            f"file from a copy."
        )
