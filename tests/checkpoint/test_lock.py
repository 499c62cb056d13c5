"""The lock between processes: who holds it is named, and a kill frees it."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mixerkit.checkpoint import lock
from mixerkit.checkpoint.lock import Lock, holder
from mixerkit.errors import UserError

HOLD = """
import sys, pathlib
from mixerkit.checkpoint.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_writes_and_a_kill_frees_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_PATIENCE", 0.05)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        who = rf"process {other.pid} on host {os.uname().nodename} since \d{{4}}-\d\d-\d\d \d\d:"
        with pytest.raises(UserError, match=who):
            Lock(tmp_path)
        assert holder(tmp_path)
        other.kill()
    assert holder(tmp_path) is None
    Lock(tmp_path).release()


def test_a_reader_that_asks_who_writes_does_not_keep_a_writer_out(tmp_path: Path):
    Lock(tmp_path).release()
    handle = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # what `holder` does, for much longer
    reader = threading.Timer(0.05, os.close, [handle])
    reader.start()
    Lock(tmp_path).release()
    reader.join()


def test_a_lock_file_without_words_still_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_PATIENCE", 0.05)
    with (tmp_path / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            Lock(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named_and_can_be_read(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"has no locks .* on another one"):
        Lock(tmp_path)
    assert (tmp_path / "lock").exists() and holder(tmp_path) is None


def test_a_disk_without_room_for_the_owner_gives_the_lock_back(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            Lock(tmp_path)
    Lock(tmp_path).release()
