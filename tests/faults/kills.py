"""kill -9 at any moment of a run (F1)."""

import signal
from pathlib import Path
from random import Random

from mixerkit.checkpoint.opening import is_finished
from tests.faults.fault import Fault, Trial
from tests.faults.sample import (
    RECIPES,
    SAVE_EVERY,
    assert_same_end,
    go_on,
    newest_step,
    reached_step,
    undisturbed,
)

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
    newest, finished = newest_step(trial.folder / "run"), is_finished(trial.folder / "run")
    ended = go_on(trial.folder, name, real=real).wait()
    assert ended.code == 0, ended
    said = "the run is finished" if finished else f"resumed at step {newest} of"
    assert not newest or said in ended.out, (newest, ended)
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


FAULTS = (
    Fault(
        "F1",
        "kill -9 at random moments, five times in each run",
        "the run goes on by itself from its newest complete checkpoint, repeats at most one save "
        "interval, and every file ends bitwise equal",
        trials=40,
        short=1,
        run=killed_at_random,
        counts="runs, each killed 5 times",
    ),
)
