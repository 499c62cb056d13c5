"""Faults that end or stop a process: kill -9 anywhere, signals, resumes, suspension, long runs."""

import signal
from pathlib import Path
from random import Random

from tests.faults.fault import Fault, Trial
from tests.faults.repeats import F17
from tests.faults.resumes import F15
from tests.faults.sample import (
    RECIPES,
    SAVE_EVERY,
    assert_same_end,
    go_on,
    newest_step,
    reached_step,
    undisturbed,
)
from tests.faults.saves import F2
from tests.faults.signals import F12
from tests.faults.soak import F18

KILLS = 5


def killed_at_random(trial: Trial) -> None:
    """A run killed five times, each time gone on with, ends as if nothing had happened."""
    real = trial.number % 10 == 9
    name = trial.random.choice(sorted(RECIPES))
    alone = undisturbed(name, real=real)
    for _ in range(KILLS):
        _kill_once(trial.folder, name, real, trial.random, alone.seconds)
        run = trial.folder / "run"
        assert reached_step(run) - newest_step(run) <= SAVE_EVERY, "too much must be recomputed"
    newest = newest_step(trial.folder / "run")
    ended = go_on(trial.folder, name, real=real).wait()
    assert ended.code == 0, ended
    assert not newest or f"resumed at step {newest} of" in ended.out, (newest, ended)
    assert_same_end(trial.folder / "run", alone.path)


def _kill_once(folder: Path, name: str, real: bool, random: Random, longest: float) -> None:
    """Kill the run at some moment before its end; one that ends earlier is gone on with."""
    while True:
        child = go_on(folder, name, real=real)
        if not child.ended_within(random.uniform(0, longest)):
            child.send(signal.SIGKILL)
            if child.wait().code == -signal.SIGKILL:
                return
        assert child.wait().code == 0, child.wait()
        longest /= 2


F1 = Fault(
    "F1",
    "kill -9 at random moments, five times in each run",
    "the run goes on by itself from its newest complete checkpoint, repeats at most one save "
    "interval, and every file ends bitwise equal",
    trials=40,
    short=1,
    run=killed_at_random,
    counts="runs, each killed 5 times",
)

FAULTS = (F1, F2, F12, F15, F17, F18)
