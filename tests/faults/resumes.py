"""Runs that are stopped at every step and gone on with."""

import signal
from itertools import product
from pathlib import Path

from tests.faults.child import Hook
from tests.faults.fault import Fault, Trial
from tests.faults.sample import (
    EPOCH,
    RECIPES,
    assert_same_end,
    go_on,
    newest_step,
    undisturbed,
)

SELDOM: Hook = ("set_value", ("mixerkit.training.setup:LOG_ROWS", 10))
"""Rows of metrics every three steps, so that what lies between two of them must be saved too."""
STOPS = [
    *((name, (step,)) for step, name in product(range(1, 3 * EPOCH + 1), sorted(RECIPES))),
    *((name, None) for name in sorted(RECIPES) * 3),
]
"""Recipe, and the steps to stop in; None: five at random."""


def stopped(trial: Trial) -> None:
    """The run ends as if it had never been stopped."""
    name, steps = STOPS[(trial.number * 35 + 41) % len(STOPS)]  # the first few of every kind
    for step in steps or sorted(trial.random.sample(range(1, 3 * EPOCH + 1), 5)):
        _stop_in(trial.folder, name, step)
    ended = go_on(trial.folder, name, (SELDOM,)).wait()
    assert ended.code == 0, ended
    assert_same_end(trial.folder / "run", undisturbed(name, (SELDOM,)).path, shifted=True)


def _stop_in(folder: Path, name: str, step: int) -> None:
    """Stop as step `step` begins: it is given up or finished, never half of it kept."""
    call = step - newest_step(folder / "run")
    stop: Hook = (
        "signal_in",
        ("mixerkit.training.update:Update.__call__", call, signal.SIGTERM),
    )
    ended = go_on(folder, name, (SELDOM, stop)).wait()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert newest_step(folder / "run") in (step - 1, step), ended


FAULTS = (
    Fault(
        "F15",
        "stopped at every step of three epochs and gone on with; chains of five",
        "with mixup, averaged weights, accumulation and each optimiser, every file of the end is "
        "bitwise equal",
        trials=len(STOPS),
        short=2,
        run=stopped,
        counts="runs",
    ),
)
