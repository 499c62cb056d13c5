"""What is said when the disk does not take what a run writes."""

import errno
from pathlib import Path


def not_written(path: Path, error: OSError, kept: str, needed: int) -> str:
    """What could not be written and why, what is `kept`, and what to do before resuming.

    `needed`: bytes that the file takes.
    """
    to_do = advice(error, path.parent, needed) or "See to the disk"
    return f"{path} could not be written: {reason(error)}. {kept} {to_do}, then resume the run."


def reason(error: OSError) -> str:
    """The system's words for an error, without its number and path."""
    return error.strerror or str(error)


def advice(error: OSError, folder: Path, needed: int = 0) -> str:
    """How much to free where the disk, or one's share of it, is full; else nothing."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return f"Free at least {max(1, -(-needed // 2**20)):,} MiB on the disk of {folder}"
