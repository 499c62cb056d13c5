"""The runs in a folder, one summary each."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoints import RECIPE
from mixerkit.checkpoint.opening import has_run, reached_step
from mixerkit.checkpoint.records import METRICS, STOPPED, read_stopped
from mixerkit.checkpoint.run import RunFolder, top1_of
from mixerkit.errors import UserError


def list_runs(root: Path) -> list[dict[str, Any]]:
    """A summary of `root` if it is a run, else of each run in it, or without any in the folders
    below, as of a study; latest last.

    A run that cannot be read is listed too: its `state` is "damaged", its `problem` says why.
    """
    if not root.is_dir():
        raise UserError(f"No folder {root}: `mixer train` makes runs, in runs/ unless told where.")
    if has_run(root):
        paths = [root]
    else:
        paths = [path for path in sorted(root.iterdir()) if has_run(path)] or list(_below(root))
    return sorted(map(_listed, paths), key=lambda row: row["updated"] or "")


def further_runs(root: Path) -> dict[Path, int]:
    """How many runs are further below, for each folder in `root` that is no run and holds any."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not has_run(path)]
    counts = {path: sum(1 for _ in _below(path)) for path in folders}
    return {path: count for path, count in counts.items() if count}


def _below(root: Path) -> Iterator[Path]:
    """The runs in the folders below, at any depth; in a run there are no others."""
    for here, folders, _ in os.walk(root):
        inner = {name: Path(here) / name for name in sorted(folders)}
        runs = {name: path for name, path in inner.items() if has_run(path)}
        yield from runs.values()
        folders[:] = [name for name in inner if name not in runs]


def summary(run: RunFolder) -> dict[str, Any]:
    """What `mixer runs` shows of a run; figures that do not exist yet are None, and so is why it
    stopped, where that is not known."""
    rows, state = run.metrics(), run.state()
    test = top1_of(rows, "test")
    files = [path for path in (run.path / RECIPE, run.path / METRICS) if path.exists()]
    touched = max(path.stat().st_mtime for path in files)
    return {
        "name": run.path.name,
        "path": str(run.path),
        "recipe": run.recipe().name,
        "state": state,
        "stopped": _why_stopped(run.path / STOPPED) if state == "stopped" else None,
        "step": reached_step(run.path),
        "total_steps": run.choices().get("total_steps"),
        "best_validation": max(top1_of(rows, "validation"), default=None),
        "test_accuracy": test[-1] if test else None,
        "updated": datetime.fromtimestamp(touched, UTC).isoformat(timespec="seconds"),
        "problem": None,
    }


def _why_stopped(path: Path) -> str | None:
    try:
        return read_stopped(path)
    except UserError:  # it was killed, and nobody could note why
        return None


FIGURES = ("recipe", "stopped", "step", "total_steps", "best_validation", "test_accuracy")


def _listed(path: Path) -> dict[str, Any]:
    try:
        return summary(RunFolder.open(path))
    except (UserError, OSError) as error:
        figures = dict.fromkeys((*FIGURES, "updated"))
        damaged = {"state": "damaged", "problem": str(error)}
        return {"name": path.name, "path": str(path)} | figures | damaged
