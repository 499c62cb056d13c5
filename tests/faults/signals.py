"""SIGTERM, SIGINT and SIGHUP at any moment of a run, closed terminals and pipes, nohup (F12)."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.child import Child, Ended, Hook
from tests.faults.fault import Fault, Trial
from tests.faults.sample import (
    RECIPES,
    ROLLING,
    ROLLS_BACK,
    STEPS,
    assert_same_end,
    go_on,
    newest_step,
    reached_step,
    undisturbed,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LONGEST = 10.0
"""Seconds from the signal to the end of a run as small as these."""
HANG = 60.0
"""Seconds for which an image is not read."""
WAITING, ROLLING_BACK = "waiting for images", "rolling back"
PHASES = {
    "opening the data": ("mixerkit.training.loop:open_data", 1),
    "making the folder": ("mixerkit.checkpoint.files:write_atomic", 2),
    "choosing to compile": ("mixerkit.training.loop:choose_compile", 1),
    WAITING: ("mixerkit.data.loader:TrainLoader._crop", 50 * STEPS),
    "between steps": ("mixerkit.training.update:Update.__call__", STEPS),
    "inside steps and evaluations": ("mixerkit.model.mixer:MlpMixer.forward", 100),
    ROLLING_BACK: ("mixerkit.training.failures:Failures._go_back", 1),
    "saving": ("mixerkit.checkpoint.run:RunFolder.save_checkpoint", 7),
    "inside a save": ("mixerkit.checkpoint.files:sync", 50),
    "keeping the model": ("mixerkit.training.measuring:keep_model", 1),
    "the report": ("mixerkit.insight.report:write_report", 1),
}
"""Where a signal is sent from inside: a function, and up to which of its calls."""
IN_EVERY_RUN = ("between steps", "inside steps and evaluations")
IN_TRAINING = (*IN_EVERY_RUN, "inside a save")


def signalled(trial: Trial) -> None:
    """A run that gets one to three signals saves at each, loses no step, and ends the same."""
    chance, run = trial.random, trial.folder / "run"
    phases = [
        list(PHASES)[(trial.number + repeat) % len(PHASES)]
        for repeat in range(chance.randint(1, 3))
    ]
    name, hooks = _suited(phases, chance)
    alone = undisturbed(name, hooks)
    for phase in phases:
        number = chance.choice(SIGNALS)
        sent = trial.folder / "sent"
        if chance.random() < 0.2:
            ended = _at_random(
                go_on(trial.folder, name, hooks), number, chance, alone.seconds, sent
            )
        else:
            hook = _from_inside(phase, number, chance, sent)
            ended = go_on(trial.folder, name, (*hooks, hook)).wait()
            heard = ended.code != 0 or "Stopping and saving" in ended.out
            assert heard or not sent.exists(), ended
        _assert_stopped(run, ended, number, sent)
    _assert_ends_as(alone.path, trial.folder, name, hooks)


def _suited(phases: list[str], chance: Random) -> tuple[str, tuple[Hook, ...]]:
    """A recipe whose run has these phases: one that goes back, or that crops images in threads."""
    if ROLLING_BACK in phases:
        return ROLLING.name, (ROLLS_BACK,)
    return ("adamw" if WAITING in phases else chance.choice(sorted(RECIPES))), ()


def _from_inside(phase: str, number: int, chance: Random, sent: Path) -> Hook:
    target, calls = PHASES[phase]
    hang = HANG if phase == WAITING else 0.0
    return ("signal_in", (target, chance.randint(1, calls), number, str(sent), hang))


def signalled_command(trial: Trial) -> None:
    """The same, to the command as people type it, at a random moment."""
    chance, sent = trial.random, trial.folder / "sent"
    name, number = chance.choice(sorted(RECIPES)), chance.choice(SIGNALS)
    alone = undisturbed(name, real=True)
    child = go_on(trial.folder, name, real=True)
    ended = _at_random(child, number, chance, alone.seconds, sent)
    _assert_stopped(trial.folder / "run", ended, number, sent)
    ended = go_on(trial.folder, name, real=True).wait()
    assert ended.code == 0, ended
    assert_same_end(trial.folder / "run", alone.path, shifted=True)


def _at_random(child: Child, number: int, chance: Random, longest: float, sent: Path) -> Ended:
    if not child.ended_within(chance.uniform(0, longest)):
        sent.write_text(str(time.monotonic()))
        child.send(number)
    return child.wait()


def _assert_stopped(run: Path, ended: Ended, number: int, sent: Path) -> None:
    """In training: the exit code, and every step saved, in time. Before and after it the signal may
    end the process at once, for there is nothing to lose. A run may also end before its signal."""
    _assert_in_time(sent)
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
    _assert_saved(run)


def _assert_saved(run: Path) -> None:
    newest, reached = newest_step(run), reached_step(run)
    assert newest == reached, f"step {reached} was reached, {newest} saved"


def _assert_in_time(sent: Path) -> None:
    """Called when the process has ended; without the file there was no signal."""
    if sent.exists():
        seconds = time.monotonic() - float(sent.read_text())
        assert seconds < LONGEST, f"{seconds:.1f} s from the signal to the end"
        sent.unlink()


def _assert_ends_as(alone: Path, folder: Path, name: str, hooks: tuple[Hook, ...] = ()) -> None:
    ended = go_on(folder, name, hooks).wait()
    assert ended.code == 0, ended
    assert_same_end(folder / "run", alone, shifted=True)


# -- terminals, pipes, nohup ------------------------------------------------------------------


def terminal_closed(trial: Trial) -> None:
    """The run saves although it can say nothing any more."""
    chance, sent = trial.random, trial.folder / "sent"
    name = chance.choice(sorted(RECIPES))
    target, calls = PHASES[chance.choice(IN_TRAINING)]
    close: Hook = ("on_terminal", (target, chance.randint(1, calls), str(sent)))
    ended = go_on(trial.folder, name, (close,)).wait()
    _assert_in_time(sent)
    assert ended.code == (128 + signal.SIGHUP if newest_step(trial.folder / "run") < STEPS else 0)
    _assert_saved(trial.folder / "run")
    _assert_ends_as(undisturbed(name).path, trial.folder, name)


def pipe_closed(trial: Trial) -> None:
    """A run whose output nobody reads any more goes on to its end."""
    name = trial.random.choice(sorted(RECIPES))
    ended = go_on(trial.folder, name, (("into_head", ()),)).wait()
    assert (ended.code, ended.err) == (0, ""), ended
    assert_same_end(trial.folder / "run", undisturbed(name).path)


def no_hangup(trial: Trial) -> None:
    """Started by nohup, a run takes no notice of SIGHUP."""
    chance = trial.random
    name, phase = chance.choice(sorted(RECIPES)), chance.choice(IN_EVERY_RUN)
    hangup = _from_inside(phase, signal.SIGHUP, chance, trial.folder / "sent")
    hooks = (("ignore_signal", (signal.SIGHUP,)), hangup)
    ended = go_on(trial.folder, name, hooks).wait()
    assert (trial.folder / "sent").exists() and ended.code == 0, ended
    assert_same_end(trial.folder / "run", undisturbed(name).path)


KINDS: tuple[Callable[[Trial], None], ...] = (
    *(signalled, terminal_closed, pipe_closed, no_hangup, signalled, signalled_command),
    *(signalled, signalled, signalled, signalled, signalled, signalled),
)

FAULTS = (
    Fault(
        "F12",
        "SIGTERM, SIGINT, SIGHUP in every phase, also while an image hangs; terminals and "
        "pipes closed; nohup",
        "exit code 128 + signal within 10 s, no step lost, every file of the end bitwise "
        "equal; without its pipe, or under nohup, the run goes on",
        trials=120,
        short=4,
        run=lambda trial: KINDS[trial.number % len(KINDS)](trial),
        counts="runs",
    ),
)
