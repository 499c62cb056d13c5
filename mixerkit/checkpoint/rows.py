"""Files of one JSON object a line, which grow while others read them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.files import sync
from mixerkit.errors import UserError


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line, in one write; NaN and infinity raise `ValueError`, for JSON has none."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that is being written is left for later. Absent file: none."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    rows = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, found {row!r:.40}.")
        rows.append(row)
    return rows


def durable_size(path: Path) -> int:
    """Bytes of the file, after they have reached the disk; an absent file is made."""
    path.touch()
    sync(path)
    return path.stat().st_size


def cut_back(path: Path, size: int) -> None:
    """Cut the file to `size` bytes; where it is shorter, say on stderr that rows were lost."""
    found = durable_size(path)
    if found < size:
        print(f"warning: {path} lost rows: {found} bytes, not {size} as before.", file=sys.stderr)
        return
    os.truncate(path, size)
    sync(path)


def cut_torn_line(path: Path) -> None:
    """Remove the beginning of a line that a kill left without its end."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
