"""kill -9 inside one save, the one that puts a checkpoint on disk and takes the oldest away."""

import errno
import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

from tests.faults.child import PATIENCE, Child, Hook
from tests.faults.fault import Fault, Trial
from tests.faults.sample import assert_same_end, go_on, newest_step, undisturbed

NAME = "muon"
BEFORE, AFTER = 25, 30
"""Steps of the newest checkpoint before the save, and of the one that it makes."""
HOOKED, TRACED = 80, 300
"""At least as many as a save has file calls in Python, and system calls on files."""


def before_the_save(folder: Path) -> Path:
    """A run that was killed one step before it would have saved."""
    kill: Hook = (
        "signal_in",
        ("mixerkit.training.update:Update.__call__", AFTER - 1, signal.SIGKILL),
    )
    assert go_on(folder, NAME, (kill,)).wait().code == -signal.SIGKILL
    assert newest_step(folder / "run") == BEFORE
    calls = _file_calls(folder)
    assert "rmdir" in calls, "the save was to prune too"
    assert len(calls) <= HOOKED, f"{len(calls)} file calls, {HOOKED} trials"
    return folder / "run"


def _file_calls(folder: Path) -> list[str]:
    """The file calls of the save, found in a copy."""
    copy, path = folder / "copy", folder / "calls"
    shutil.copytree(folder / "run", copy / "run")
    assert go_on(copy, NAME, (("list_file_calls", (AFTER, str(path))),)).wait().code == 0
    shutil.rmtree(copy)
    return path.read_text().split()


def killed_inside(trial: Trial) -> None:
    """Kill at one point of the save; what is there is a whole checkpoint, and the end the same."""
    folder, run, traced = trial.folder, trial.folder / "run", trial.number - HOOKED
    shutil.copytree(trial.shared, run)
    child = _traced(folder, traced + 1) if traced >= 0 and may_trace() else None
    if child is None:
        point = trial.number * 31 % HOOKED  # spread, so that the first few are everywhere
        child = go_on(folder, NAME, (("kill_at_file_call", (AFTER, point)),))
    ended = child.wait()
    assert ended.code == -signal.SIGKILL, ended
    newest = newest_step(run)
    assert newest >= BEFORE, newest
    ended = go_on(folder, NAME).wait()
    assert ended.code == 0 and f"resumed at step {newest} of" in ended.out, ended
    assert_same_end(run, undisturbed(NAME).path)


def _traced(folder: Path, when: int) -> Child:
    """The run, killed by strace as it enters system call `when` on files, from the save on."""
    gate = folder / "gate"
    os.mkfifo(gate)
    child = go_on(folder, NAME, (("wait_for_tracer", (AFTER, str(gate))),))
    handle = _opened(gate, child)
    strace = subprocess.Popen(
        [*STRACE, f"inject=%file,%desc:signal=SIGKILL:when={when}", "-p", str(child.pid)],
        stderr=subprocess.PIPE,
    )
    assert strace.stderr
    with strace.stderr:
        said = strace.stderr.readline()
        os.close(handle)
        assert b"attached" in said, said
        strace.wait(PATIENCE)
    return child


def _opened(gate: Path, child: Child) -> int:
    """The named pipe, once the run waits at its other end."""
    while not child.ended_within(0.01):
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
    raise AssertionError(child.wait())


STRACE = ("strace", "-o", os.devnull, "-e", "trace=%file,%desc", "-e")


@cache
def may_trace() -> bool:
    """Whether strace is here and may look into another process of ours."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", str(PATIENCE)]) as other:
        strace = ["timeout", "1", *STRACE, "trace=none", "-p", str(other.pid)]
        said = subprocess.run(strace, capture_output=True, check=False).stderr
        other.kill()
    return b"attached" in said


FAULTS = (
    Fault(
        "F2",
        "kill -9 at every file operation of a save, and at every one of its system calls",
        "a whole checkpoint is there, the run goes on from it, and every file ends bitwise equal",
        trials=HOOKED + TRACED,
        short=4,
        run=killed_inside,
        prepare=before_the_save,
        counts="kills",
    ),
)
