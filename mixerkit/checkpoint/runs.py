"""The runs in a folder, one summary each."""

from pathlib import Path
from typing import Any

from mixerkit.checkpoint.mending import is_mendable
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError


def list_runs(root: Path) -> list[dict[str, Any]]:
    """A summary of `root` if it is a run, else of each run in it, latest last.

    A run that cannot be read is listed too: its `state` is "damaged", its `problem` says why.
    """
    if not root.is_dir():
        raise UserError(f"No folder {root}: `mixer train` makes runs, in runs/ unless told where.")
    paths = (
        [root] if _has_run(root) else [path for path in sorted(root.iterdir()) if _has_run(path)]
    )
    return sorted((_summary(path) for path in paths), key=lambda row: row["updated"] or "")


def _has_run(path: Path) -> bool:
    """Whether a run is here, or what is left of one."""
    return is_run(path) or is_mendable(path)


def _summary(path: Path) -> dict[str, Any]:
    try:
        return RunFolder.open(path).summary()
    except (UserError, OSError) as error:
        figures = dict.fromkeys(
            ("recipe", "step", "total_steps", "best_validation", "test_accuracy", "updated")
        )
        damaged = {"state": "damaged", "problem": str(error)}
        return {"name": path.name, "path": str(path)} | figures | damaged
