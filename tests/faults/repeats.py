"""What must change nothing: running again, being suspended, a clock set back, fewer processors. And
what must be said: another instruction set or PyTorch than the run's."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tests.faults.child import Child, Ended, Hook, start_command
from tests.faults.fault import Fault, Trial
from tests.faults.sample import assert_same_end, go_on, undisturbed, write_recipe

UPDATE = "mixerkit.training.update:Update.__call__"


def again(trial: Trial, name: str) -> None:
    """The same recipe in another folder."""
    _assert_same(trial, name, go_on(trial.folder, name).wait())


def suspended(trial: Trial, name: str, seconds: float) -> None:
    """Stopped by the system for a while, and let go on."""
    longest = undisturbed(name).seconds / 2
    child = go_on(trial.folder, name)
    if not child.ended_within(trial.random.uniform(0, longest)):
        child.send(signal.SIGSTOP)
        time.sleep(seconds)
        child.send(signal.SIGCONT)
    _assert_same(trial, name, child.wait())


def clock_set_back(trial: Trial, name: str) -> None:
    """The clock on the wall goes back by days, again in the process that goes on after a kill."""
    back: Hook = ("set_clock_back", (UPDATE, trial.random.randint(1, 10), 1e6))
    kill: Hook = ("signal_in", (UPDATE, trial.random.randint(12, 30), signal.SIGKILL))
    assert go_on(trial.folder, name, (back, kill)).wait().code == -signal.SIGKILL
    further: Hook = ("set_clock_back", (UPDATE, 1, 2e6))
    _assert_same(trial, name, go_on(trial.folder, name, (further,)).wait())


def _assert_same(trial: Trial, name: str, ended: Ended) -> None:
    assert ended.code == 0, ended
    assert_same_end(trial.folder / "run", undisturbed(name).path)


# -- another machine -------------------------------------------------------------------------


def fewer_processors(trial: Trial, name: str) -> None:
    """A run that took two threads from its machine keeps them on a machine of one."""
    ends: list[Path] = []
    for later in ("2", "1"):
        folder = trial.folder / f"then-{later}"
        folder.mkdir()
        write_recipe(folder, name)
        words = ["train", "recipe.yaml", "--threads", "0", "--out", "run"]
        child = start_command(words, folder, _processors("2"))
        _kill(child, folder / "run")
        words = ["train", "--resume", "run"]
        ended = start_command(words, folder, _processors(later)).wait()
        assert ended.code == 0, ended
        ends.append(folder / "run")
    assert_same_end(*ends)


def _processors(count: str) -> dict[str, str]:
    """The environment in which PyTorch takes so many threads; they wait without spinning."""
    return {"OMP_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}


def _kill(child: Child, run: Path) -> None:
    """kill -9 once the run has a checkpoint."""
    while not child.ended_within(0.02) and not any(run.glob("checkpoints/step-*")):
        pass
    child.send(signal.SIGKILL)
    ended = child.wait()
    assert ended.code == -signal.SIGKILL, ended


def other_torch(trial: Trial, name: str) -> None:
    """Gone on with by another PyTorch: said, with both versions."""
    _killed(trial, name)
    ended = go_on(trial.folder, name, (("set_value", ("torch:__version__", "2.0.0")),)).wait()
    assert ended.code == 0, ended
    said = ended.out + ended.err
    assert "2.0.0" in said and str(torch.__version__) in said, ended


def other_instruction_set(trial: Trial, name: str) -> None:
    """Gone on with on a processor of fewer instructions: said, with both names."""
    _killed(trial, name)
    words = ["train", "--resume", "run"]
    ended = start_command(words, trial.folder, {"ATEN_CPU_CAPABILITY": "default"}).wait()
    assert ended.code == 0, ended
    here, said = torch.backends.cpu.get_cpu_capability(), ended.out + ended.err
    assert here == "DEFAULT" or (here in said and "DEFAULT" in said), ended


def _killed(trial: Trial, name: str) -> None:
    kill: Hook = ("signal_in", (UPDATE, 20, signal.SIGKILL))
    assert go_on(trial.folder, name, (kill,)).wait().code == -signal.SIGKILL


TRIALS: tuple[Callable[[Trial], None], ...] = (
    partial(suspended, name="muon", seconds=0.3),
    partial(clock_set_back, name="adamw"),
    partial(other_torch, name="muon"),
    partial(again, name="muon"),
    partial(again, name="adamw"),
    partial(again, name="sgd"),
    partial(suspended, name="sgd", seconds=5),
    partial(clock_set_back, name="muon"),
    partial(other_instruction_set, name="muon"),
    partial(fewer_processors, name="muon"),
)

FAULTS = (
    Fault(
        "F17",
        "run twice; suspended for 5 s; the clock set back; gone on with on another machine",
        "every file of the end is bitwise equal; a warning names the PyTorch or instruction set "
        "that differs from the run's",
        trials=len(TRIALS),
        short=3,
        run=lambda trial: TRIALS[trial.number](trial),
        counts="runs",
    ),
)
