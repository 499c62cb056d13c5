"""SIGTERM, SIGINT and SIGHUP at any moment of a run."""

import signal
from pathlib import Path
from random import Random

from tests.faults.child import Child, Ended, Hook
from tests.faults.fault import Fault, Trial
from tests.faults.sample import (
    RECIPES,
    STEPS,
    assert_same_end,
    go_on,
    newest_step,
    reached_step,
    undisturbed,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PHASES = {
    "opening the data": ("mixerkit.training.loop:open_data", 1),
    "making the folder": ("mixerkit.checkpoint.files:write_atomic", 2),
    "choosing to compile": ("mixerkit.training.loop:choose_compile", 1),
    "between steps": ("mixerkit.training.update:Update.__call__", STEPS),
    "inside steps and evaluations": ("mixerkit.model.mixer:MlpMixer.forward", 100),
    "saving": ("mixerkit.checkpoint.run:RunFolder.save_checkpoint", 7),
    "inside a save": ("mixerkit.checkpoint.files:sync", 60),
    "keeping the model": ("mixerkit.training.measuring:keep_model", 1),
    "the report": ("mixerkit.insight.report:write_report", 1),
}
"""Where a signal is sent from inside: a function, and up to which of its calls."""


def signalled(trial: Trial) -> None:
    """A run that gets one to three signals saves at each, loses no step, and ends the same."""
    chance, real = trial.random, trial.number % 10 == 9
    name, run = chance.choice(sorted(RECIPES)), trial.folder / "run"
    alone = undisturbed(name, real=real)
    phases = sorted(PHASES)
    for repeat in range(chance.randint(1, 3)):
        number, at = chance.choice(SIGNALS), phases[(trial.number + repeat) % len(phases)]
        if real or chance.random() < 0.3:
            ended = _at_random(trial.folder, name, real, number, chance, alone.seconds)
        else:
            ended = go_on(trial.folder, name, (_from_inside(at, number, chance),)).wait()
        _assert_stopped(run, ended, number)
    ended = go_on(trial.folder, name, real=real).wait()
    assert ended.code == 0, ended
    assert_same_end(run, alone.path, stopped=True)


def _from_inside(phase: str, number: int, chance: Random) -> Hook:
    target, calls = PHASES[phase]
    return ("signal_in", (target, chance.randint(1, calls), number))


def _at_random(
    folder: Path, name: str, real: bool, number: int, chance: Random, longest: float
) -> Ended:
    child: Child = go_on(folder, name, real=real)
    if not child.ended_within(chance.uniform(0, longest)):
        child.send(number)
    return child.wait()


def _assert_stopped(run: Path, ended: Ended, number: int) -> None:
    """In training: the exit code, and every step saved. Before and after it the signal may end the
    process at once, for there is nothing to lose. A run may also end before its signal."""
    began = "compile: " in ended.out or "resumed at step" in ended.out
    newest = newest_step(run)
    if ended.code == 0:
        assert newest == STEPS, (newest, ended)
    elif began and newest < STEPS:
        assert ended.code == 128 + number, ended
        assert f"Stopped at step {newest}, saved" in ended.out, ended
    else:
        assert ended.code in (128 + number, -number), ended
    assert "Traceback" not in ended.err or not began, ended.err  # Python's own, while it imports
    assert newest == reached_step(run), f"step {reached_step(run)} was reached, {newest} saved"


FAULTS = (
    Fault(
        "F12",
        "SIGTERM, SIGINT and SIGHUP in every phase, up to three times in a run",
        "exit code 128 + signal, no step lost, and with the run gone on with every file of its end "
        "bitwise equal",
        trials=120,
        short=3,
        run=signalled,
        counts="runs",
    ),
)
