"""The folders of a run's checkpoints: which steps have one, and where; nothing in them is read."""

import re
import stat
from pathlib import Path


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of `step` is, or would be."""
    return checkpoints / f"step-{step:08d}"


def step_of(folder: Path) -> int | None:
    """The step whose checkpoint a folder is by its name; None of any other name."""
    if not re.fullmatch(r"step-\d+", folder.name):
        return None
    step = int(folder.name[5:])
    return step if folder_of(folder.parent, step) == folder else None


def named_steps(checkpoints: Path) -> list[int]:
    """Steps whose name is there, oldest first; what bears it may be a file, or a link."""
    steps = map(step_of, checkpoints.glob("step-*"))
    return sorted(step for step in steps if step is not None)


def steps_in(checkpoints: Path) -> list[int]:
    """Steps with a folder, oldest first; other names are none of ours."""
    return [step for step in named_steps(checkpoints) if is_folder(folder_of(checkpoints, step))]


def is_folder(path: Path) -> bool:
    """Whether a folder is there, and no link to one; also where the system does not tell now."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True
