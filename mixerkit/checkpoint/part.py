"""One part of a run, as it was found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixerkit.errors import UserError

NO_CHECKSUM = "no checksum"


@dataclass(frozen=True)
class Part:
    """One part of a run. `size` in bytes; `problem` says what is wrong, and is empty where nothing
    was found; `note` says what is no damage and still worth knowing."""

    name: str
    size: int
    problem: str = ""
    note: str = ""
    checked: bool = True
    """Whether all of it was held against a checksum or a copy; else only its form."""
    made_again: bool = False
    """Whether a resume makes it again, for it follows from a checkpoint."""
    step: int | None = None
    """Of a checkpoint."""
    validation: float | None = None
    """Accuracy of a checkpoint on held-out images, as a share, where it was measured."""


def problem_of(check: Callable[[], object]) -> str:
    """What `check` says is wrong, or why it could not look; empty when it returns."""
    try:
        check()
    except (UserError, OSError) as error:
        return str(error)
    return ""


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; those that go meanwhile count nothing."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        return sum(size_of(inner) for inner in path.iterdir())
    except FileNotFoundError:
        return 0
