"""kill -9 inside one save (F2): one that takes the oldest checkpoint away, and one that takes the
place of a checkpoint which a signal left before its step was evaluated."""

import errno
import os
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mixerkit.checkpoint.run import RunFolder
from tests.faults.child import PATIENCE, Child, Hook
from tests.faults.fault import Fault, Trial, in_turn
from tests.faults.sample import assert_same_end, go_on, newest_step, undisturbed

NAME = "muon"
BEFORE, AFTER = 25, 30
"""Steps of the newest checkpoint before the save, and of the one that it makes."""
EVALUATIONS = AFTER // 3
"""The last of so many is at the step of the save."""


@dataclass(frozen=True)
class Point:
    """One place to kill at: file call `number` (from 0) of Python in a save of `run`, or as the
    process enters `system_call` for the `number`-th time since it waited for strace. `newest`: the
    step that is on disk before."""

    run: Path
    newest: int
    number: int
    system_call: str = ""


def points(folder: Path) -> list[Point]:
    """Every place in both saves, each once and in a mixed order; system calls in the first only."""
    kinds: list[list[Point]] = []
    for name, make, newest in (
        ("new", before_the_save, BEFORE), ("replacing", before_replacing, AFTER),
    ):  # fmt: skip
        (folder / name).mkdir()
        run = make(folder / name)
        calls = file_calls(folder / name)
        assert "rmdir" in calls, "the save was to remove a folder too"
        kinds.append([Point(run, newest, number) for number in range(len(calls) + 1)])
    if may_trace():
        run = kinds[0][0].run
        found = _system_calls(run.parent)
        kinds.append([Point(run, BEFORE, number, name) for name, number in found])
    return in_turn(*kinds)


def before_the_save(folder: Path) -> Path:
    """A run that was killed one step before it would have saved."""
    kill: Hook = (
        "signal_in",
        ("mixerkit.training.update:Update.__call__", AFTER - 1, signal.SIGKILL),
    )
    assert go_on(folder, NAME, (kill,)).wait().code == -signal.SIGKILL
    assert newest_step(folder / "run") == BEFORE
    return folder / "run"


def before_replacing(folder: Path) -> Path:
    """A run that a signal stopped while it evaluated a step at which it saves: it will evaluate
    again, and save another checkpoint of that step."""
    stop: Hook = (
        "signal_in",
        ("mixerkit.training.measuring:Measuring.validate", EVALUATIONS, signal.SIGTERM),
    )
    assert go_on(folder, NAME, (stop,)).wait().code == 128 + signal.SIGTERM
    with RunFolder.open(folder / "run") as run:
        found = run.newest_checkpoint()
        assert found and (found[1]["step"], found[1]["validation"]) == (AFTER, None)
    return folder / "run"


def file_calls(folder: Path) -> list[str]:
    """The file calls of Python in the save of `folder`/run, found in a copy."""
    copy, path = folder / "copy", folder / "calls"
    shutil.copytree(folder / "run", copy / "run")
    assert go_on(copy, NAME, (("list_file_calls", (AFTER, str(path))),)).wait().code == 0
    shutil.rmtree(copy)
    return path.read_text().split()


def killed_inside(trial: Trial) -> None:
    """Kill at one point of the save; what is there is a whole checkpoint, and the end the same."""
    point: Point = trial.shared[trial.number]
    folder, run = trial.folder, trial.folder / "run"
    shutil.copytree(point.run, run)
    if point.system_call:
        kill = f"inject={point.system_call}:signal=SIGKILL:when={point.number}"
        child = _traced(folder, kill)
    else:
        child = go_on(folder, NAME, (("kill_at_file_call", (AFTER, point.number)),))
    ended = child.wait()
    assert ended.code == -signal.SIGKILL, ended
    newest = newest_step(run)
    assert newest >= point.newest, newest
    ended = go_on(folder, NAME).wait()
    assert ended.code == 0 and f"resumed at step {newest} of" in ended.out, ended
    assert_same_end(run, undisturbed(NAME).path)


# -- system calls -------------------------------------------------------------------------


def _system_calls(folder: Path) -> list[tuple[str, int]]:
    """Name and how many of that name since strace was waited for, of the system calls on files in
    the save of `folder`/run; found in a copy."""
    copy, path = folder / "copy", folder / "trace"
    shutil.copytree(folder / "run", copy / "run")
    assert _traced(copy, "trace=%file,%desc", path).wait().code == 0
    shutil.rmtree(copy)
    calls: list[tuple[str, int]] = []
    marks: list[int] = []
    so_far: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        name = line.partition("(")[0]
        so_far[name] += 1
        calls.append((name, so_far[name]))
        if '/gate"' in line:
            marks.append(len(calls))
    return calls[marks[-2] : marks[-1] - 1]


def _traced(folder: Path, expression: str, path: Path = Path(os.devnull)) -> Child:
    """The run with strace at it from the save on; what strace writes goes to `path`."""
    gate = folder / "gate"
    os.mkfifo(gate)
    child = go_on(folder, NAME, (("wait_for_tracer", (AFTER, str(gate))),))
    handle = _opened(gate, child)
    strace = subprocess.Popen(
        [*STRACE, expression, "-o", path, "-p", str(child.pid)],
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


STRACE = ("strace", "-e", "trace=%file,%desc", "-e")


@cache
def may_trace() -> bool:
    """Whether strace is here and may look into another process of ours."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", str(PATIENCE)]) as other:
        strace = ["timeout", "1", *STRACE, "trace=none", "-o", os.devnull, "-p", str(other.pid)]
        said = subprocess.run(strace, capture_output=True, check=False).stderr
        other.kill()
    return b"attached" in said


def not_traced(_: object) -> str:
    """What is left out where strace is missing or not allowed."""
    return "" if may_trace() else "system calls, which strace may not stop here"


FAULTS = (
    Fault(
        "F2",
        "kill -9 at every file operation and system call of a save, and at every file "
        "operation of one that replaces a checkpoint",
        "a whole checkpoint is there, the run goes on from it, and every file ends bitwise equal",
        trials=None,
        short=3,
        run=killed_inside,
        prepare=points,
        counts="kills",
        points=len,
        left_out=not_traced,
    ),
)
