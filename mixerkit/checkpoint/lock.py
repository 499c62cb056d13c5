"""The lock of a folder: one process writes in it at a time."""

import errno
import fcntl
import json
import os
import socket
import time
from datetime import datetime
from pathlib import Path

from mixerkit.errors import UserError

LOCK_PATIENCE = 0.5
"""Seconds. A reader that asks whether a run is active holds the lock for some microseconds."""


class Taken(UserError):
    """The folder belongs to another run, or to another process now."""


class NoLocks(UserError):
    """The file system has no locks."""


class Lock:
    """The right to write in a folder, held by one process at a time until `release`.

    The system frees it when the process ends, however it ends. Readers never need it. `patience`:
    seconds to wait for another process that has it, then `Taken`.
    """

    def __init__(self, folder: Path, patience: float = LOCK_PATIENCE) -> None:
        path = folder / "lock"
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"Cannot write in {folder}: {error.strerror}.") from error
        try:
            self._take(folder, patience)
        except BaseException:
            self.release()
            raise

    def _take(self, folder: Path, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not _lock(self._handle, fcntl.LOCK_EX, folder):
            if time.monotonic() > deadline:
                raise Taken(
                    f"{folder} is being written by {holder(folder) or 'another process'}. Wait "
                    f"for it to end, stop it, or give another folder."
                )
            time.sleep(0.01)
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        text = json.dumps(owner).encode()
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))

    def release(self) -> None:
        """Let another process write; releasing twice is harmless."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def holder(folder: Path) -> str | None:
    """Who writes in `folder` now ("process 12 on host a since …"), or None when nobody does."""
    path = folder / "lock"
    if not path.exists():
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO of that name would wait for ever
    try:
        if _lock(handle, fcntl.LOCK_SH, folder):
            return None
        owner = json.loads(os.pread(handle, 4096, 0))
        return f"process {owner['pid']} on host {owner['host']} since {owner['since']}"
    except NoLocks:  # so nobody can hold one
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    finally:
        os.close(handle)


def _lock(handle: int, kind: int, folder: Path) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        raise NoLocks(
            f"The file system of {folder} has no locks ({error.strerror}), without which two "
            f"processes could write in one run: put the run on another one, with --out."
        ) from error
    return True
