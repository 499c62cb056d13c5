"""Files of one JSON object a line, which grow while others read them.

A kill leaves at most the beginning of a line at the end. A loss of power can leave zeros where
rows were that had not reached the disk; no row holds a zero byte, so what is from there on is gone.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import json_mapping, not_read
from mixerkit.checkpoint.files import sync
from mixerkit.errors import UserError, warn


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line, in one write; NaN and infinity raise `ValueError`, for JSON has none.

    Where the disk takes no whole line, none of it stays, and an `OSError` names the file.
    """
    line = f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode()
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.truncate(path, before)
            raise OSError(error.errno, error.strerror, str(path)) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that is being written is left for later. Absent file: none."""
    return [json_mapping(f"{path}, line {i}", line) for i, line in _lines(path)]


def read_usable_rows(
    path: Path, problem: Callable[[dict[str, Any]], str]
) -> tuple[list[dict[str, Any]], str]:
    """The rows that can be read and that `problem` has no words about; a sentence about the others,
    empty when there are none."""
    rows, others = [], []
    for number, line in _lines(path):
        try:
            row = json_mapping("It", line)
        except UserError as error:
            others.append(f"line {number}: {error}")
            continue
        if found := problem(row):
            others.append(f"line {number}: {found}.")
        else:
            rows.append(row)
    said = f"{path}: {len(others):,} unusable rows are passed over ({others[0]})" if others else ""
    return rows, said


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines with their numbers, from 1."""
    content = _content(path)
    return enumerate(content[: whole_size(content)].split(b"\n")[:-1], start=1)


def prefix_digest(path: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes; empty where the file has fewer."""
    content = _content(path)[:size]
    return hashlib.sha256(content).hexdigest() if len(content) == size else ""


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
    """Cut the file to `size` bytes, or to the last row that ends before them, which is said on
    stderr: then rows were lost or changed."""
    durable_size(path)
    whole = whole_size(_content(path)[:size])
    if whole < size:
        warn(f"{path} lost rows: {whole} bytes of whole rows, not {size} as before.")
    os.truncate(path, whole)
    sync(path)


def cut_torn_end(path: Path, kept: int = 0) -> None:
    """Remove what a kill or a loss of power left after the last whole row.

    The first `kept` bytes had reached the disk: zeros there are damage of another kind, which is
    left to look at.
    """
    content = _content(path)
    size = whole_size(content)
    if size == len(content) or size < kept:
        return
    if b"\n" in content[size:]:
        warn(
            f"{path} lost rows when the power went: {len(content) - size} bytes from byte {size} "
            f"on are zeros or follow zeros, and are removed."
        )
    os.truncate(path, size)
    sync(path)
