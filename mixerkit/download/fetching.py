"""Fetching a file over HTTP: whole and checked or not at all, going on where it stopped.

The bytes that have arrived wait beside the file, under its name with `.part`; one process
fetches a file at a time, and another that wants it waits and finds it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from mixerkit.download.progress import Shown, Watch
from mixerkit.download.transfer import NOTHING_KNOWN, Expected, Interrupted, Transfer
from mixerkit.errors import UserError

PATIENCE = 30.0
"""Seconds without a byte after which a connection is given up."""
TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; twice as many before each further one."""


def is_offline() -> bool:
    """Whether MIXERKIT_OFFLINE forbids the network."""
    return os.environ.get("MIXERKIT_OFFLINE", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where this user's downloads are kept: $XDG_CACHE_HOME/mixerkit or ~/.cache/mixerkit."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixerkit"


def fetch(
    address: str,
    path: Path,
    expected: Expected = NOTHING_KNOWN,
    *,
    verify: Callable[[Path], None] | None = None,
    watch: Watch | None = None,
    patience: float = PATIENCE,
    tries: int = TRIES,
) -> None:
    """Download `address` to `path`, unless it is there already.

    The size, `expected.sha256` and the MD5 that a server may send are checked before the file
    gets its name, and `verify` may raise `UserError` about its content. Raises `UserError`; what
    has arrived is kept for the next call, unless it proved to be wrong.
    """
    if path.exists():
        return
    if is_offline():
        raise UserError(
            f"{path} is not there, and MIXERKIT_OFFLINE forbids to fetch it: get {address} "
            f"elsewhere and put it there, or unset MIXERKIT_OFFLINE."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _alone(part) as file:
        if path.exists():  # another process was quicker
            part.unlink(missing_ok=True)
            return
        transfer = Transfer(address, part, file, expected, watch or Shown(), patience)
        headers = _insist(transfer, tries)
        transfer.check(headers, verify)
        os.fsync(file.fileno())
        part.rename(path)
        transfer.note.unlink(missing_ok=True)
        _sync(path.parent)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The part file, opened to be continued, while no other process has it."""
    while True:
        with part.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # whoever had it may have given it its name, or removed it
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield file
                return


def _insist(transfer: Transfer, tries: int) -> Message:
    """Transfer to the end, trying again when the connection breaks."""
    for attempt in range(tries):
        try:
            return transfer.go_on()
        except Interrupted as error:
            got = transfer.got()
            if attempt + 1 == tries:
                kept = f" {got:,} bytes are kept: run again to go on from there." if got else ""
                raise UserError(
                    f"{transfer.address} could not be fetched: {error}.{kept}"
                ) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("tries must be positive")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
