"""The rows of a run, held against its newest checkpoint, or looked at where nothing vouches."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoint_rows import are_gone, check_rows
from mixerkit.checkpoint.part import NO_CHECKSUM, Part, problem_of, size_of
from mixerkit.checkpoint.records import (
    METRICS,
    QUARANTINE,
    TIMING,
    read_metrics,
    read_quarantine,
    read_timings,
)
from mixerkit.checkpoint.rows import whole_size


def parts_of_rows(path: Path, newest: dict[str, Any] | None) -> Iterator[Part]:
    metrics = path / METRICS
    if os.path.lexists(metrics) or (newest and are_gone(metrics, newest)):
        yield _metrics(metrics, newest)
    for name, read in ((TIMING, read_timings), (QUARANTINE, read_quarantine)):
        if os.path.lexists(path / name):
            yield _unchecked(path / name, read)


def _metrics(path: Path, newest: dict[str, Any] | None) -> Part:
    """The rows of the newest sound checkpoint must be those that it was saved with."""
    if not os.path.lexists(path):
        lost = f"{path} is missing. A resume would go on without the earlier rows."
        return Part(METRICS, 0, lost)
    problem = problem_of(lambda: read_metrics(path)) or _problem_of_end(path)
    if problem:
        return Part(METRICS, size_of(path), problem)
    problem = _steps_problem(path, read_metrics(path))
    if newest and not problem:
        problem = problem_of(lambda: check_rows(path, newest))
    note = _counted(path)
    if newest and size_of(path) > newest["metrics_bytes"]:
        note += f"; {NO_CHECKSUM} of those after step {newest['step']:,}"
    elif not newest:
        note += f"; {NO_CHECKSUM}"
    return Part(METRICS, size_of(path), problem, note, checked=bool(newest))


def _unchecked(path: Path, read: Callable[[Path], tuple[object, str]]) -> Part:
    """Rows that nothing vouches for: only their form is looked at."""
    problem = problem_of(lambda: read(path)) or read(path)[1] or _problem_of_end(path)
    note = "" if problem else f"{_counted(path)}; {NO_CHECKSUM}"
    return Part(path.name, size_of(path), problem, note, checked=False)


def _problem_of_end(path: Path) -> str:
    content = path.read_bytes()
    whole = whole_size(content)
    if b"\0" not in content[whole:]:
        return ""
    return f"{path} holds zeros from byte {whole} on: rows were lost when the power went."


def _counted(path: Path) -> str:
    content = path.read_bytes()
    count = content.count(b"\n", 0, whole_size(content))
    torn = "; the last line is being written, or torn by a kill: a resume removes it"
    return f"{count:,} rows{torn if whole_size(content) < len(content) else ''}"


def _steps_problem(path: Path, rows: list[dict[str, object]]) -> str:
    """Every row of metrics has a step, and none is below that of the row before."""
    before = 0
    for number, row in enumerate(rows, start=1):
        step = row.get("step")
        if type(step) is not int or step < before:
            return f"{path}, line {number}: expected a step of at least {before}, found {step!r}."
        before = step
    return ""
