"""Files of one JSON object a line, which grow while others read them.

A kill leaves at most the beginning of a line at the end. A loss of power can leave zeros where
rows were that had not reached the disk; no row holds a zero byte, so what is from there on is gone.
"""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import json_mapping, not_read
from mixerkit.checkpoint.files import sync
from mixerkit.errors import RunFailed, UserError


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line, in one write; NaN and infinity raise `ValueError`, for JSON has none.

    Where the disk takes no whole line, none of it stays, and `RunFailed` is raised.
    """
    line = f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode()
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.truncate(path, before)
                raise
    except OSError as error:
        raise RunFailed(
            f"{path} could not be written: {error.strerror or error}. What was saved before is "
            f"intact: see to the disk, and resume the run."
        ) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that is being written is left for later. Absent file: none."""
    content = _content(path)
    whole = content[: whole_size(content)]
    lines = whole.split(b"\n")[:-1]
    return [json_mapping(f"{path}, line {i}", line) for i, line in enumerate(lines, start=1)]


def whole_size(content: bytes) -> int:
    """Bytes of the whole lines at the beginning: before the first zero byte, if there is one."""
    hole = content.find(b"\0")
    return content.rfind(b"\n", 0, hole if hole >= 0 else len(content)) + 1


def _content(path: Path) -> bytes:
    try:
        if not path.exists():
            return b""
        if not path.is_file():
            raise UserError(f"{path} is not a plain file.")
        return path.read_bytes()
    except OSError as error:
        raise not_read(path, error) from error


def durable_size(path: Path) -> int:
    """Bytes of the file, after they and its name have reached the disk; an absent file is made."""
    path.touch()
    sync(path)
    sync(path.parent)
    return path.stat().st_size


def cut_back(path: Path, size: int) -> None:
    """Cut the file to `size` bytes; where it is shorter, say on stderr that rows were lost."""
    found = durable_size(path)
    if found < size:
        print(f"warning: {path} lost rows: {found} bytes, not {size} as before.", file=sys.stderr)
        return
    os.truncate(path, size)
    sync(path)


def cut_torn_end(path: Path) -> None:
    """Remove what a kill or a loss of power left after the last whole row."""
    content = _content(path)
    size = whole_size(content)
    if size == len(content):
        return
    if b"\n" in content[size:]:
        print(
            f"warning: {path} lost rows when the power went: {len(content) - size} bytes from "
            f"byte {size} on are zeros or follow zeros, and are removed.",
            file=sys.stderr,
        )
    os.truncate(path, size)
    sync(path)
