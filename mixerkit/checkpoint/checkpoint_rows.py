"""The rows of metrics.jsonl that belong to a checkpoint: those that it was saved with."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from mixerkit.checkpoint.checkpoints import Checkpoints, NoneUsable
from mixerkit.checkpoint.rows import durable_size, prefix_digest
from mixerkit.errors import UserError

NO_ROWS = {"metrics_bytes": 0, "metrics_sha256": hashlib.sha256().hexdigest()}
"""What the state of a checkpoint without any rows says of them."""


class RowsChanged(UserError):
    """A checkpoint is sound, and its rows are not those that it was saved with."""


def rows_now(path: Path) -> dict[str, Any]:
    """What the state of a checkpoint says of metrics.jsonl as it is now; all of that is on the disk
    then, for a count must not outlive what it counts."""
    size = durable_size(path)
    return {"metrics_bytes": size, "metrics_sha256": prefix_digest(path, size)}


def are_gone(path: Path, state: dict[str, Any]) -> bool:
    """Whether a checkpoint has rows and somebody took the whole file away."""
    return state["metrics_bytes"] > 0 and not path.exists()


def check_rows(path: Path, state: dict[str, Any]) -> None:
    """Raise `RowsChanged` unless the rows of a checkpoint are as they were then, or all gone."""
    size = state["metrics_bytes"]
    if not are_gone(path, state) and prefix_digest(path, size) != state["metrics_sha256"]:
        raise RowsChanged(
            f"The first {size:,} bytes of {path} are not the rows that the checkpoint of step "
            f"{state['step']:,} was saved with."
        )


def newest_with_rows(
    checkpoints: Checkpoints, path: Path, before: float
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, state) of the newest sound checkpoint of a step below `before` whose rows are as
    they were, or all gone."""
    try:
        return checkpoints.newest(lambda state: check_rows(path, state), before)
    except NoneUsable as error:
        raise _none_usable(path, error) from error


def oldest_with_rows(checkpoints: Checkpoints, path: Path) -> int | None:
    """The step of the oldest sound checkpoint whose rows are as they were, or all gone."""
    return checkpoints.oldest(lambda state: check_rows(path, state))


def _none_usable(path: Path, error: NoneUsable) -> UserError:
    """What to do when checkpoints are sound and the rows of none are as they were."""
    if not any(isinstance(problem, RowsChanged) for problem in error.problems):
        return error
    return UserError(
        f"{path} was changed: no checkpoint was saved with the rows that it has now. The weights "
        f"are whole. Restore the file from a copy, or delete it to go on without the earlier rows."
    )
