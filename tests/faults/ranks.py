"""Processes that train one model together, killed at any moment (F14): one of them, which their
launcher starts again; the launcher; or all, and another number of them goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from random import Random

import pytest

from mixerkit.checkpoint.lock import holder
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.rows import read_rows
from mixerkit.spec.strict import write_yaml
from tests.faults.child import PATIENCE, environment
from tests.faults.fault import Fault, Trial
from tests.faults.sample import MUON, STEPS, assert_same_end
from tests.training.seen import seen

RECIPES = {
    strategy: replace(
        MUON, strategy=strategy, model=replace(MUON.model, dropout=0.0)
    )  # the masks of dropout are of a batch as it lies in one process
    for strategy in ("ddp", "fsdp")
}
SECONDS_TO_STOP = 60.0
WITHIN = 1e-5
"""How far losses may be from those of another number of processes, in float32."""


@dataclass(frozen=True)
class Together:
    """A launcher and the processes that it has started, in a session of their own."""

    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[int]:
        """The processes that train, of which each is a child of the launcher."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(word) for word in path.read_text().split()]
        return []

    def end(self) -> None:
        """Kill all of them, as when the machine loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        """The launcher's exit code; one that hangs is killed and fails the trial."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still running after {PATIENCE} s: {self.said()}") from None

    def said(self) -> str:
        """What all of them have printed."""
        return self.log.read_text(errors="replace")


def torchrun(count: int, program: str, words: list[str], *options: str) -> list[str]:
    """The command that starts so many processes of `program` with `words`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={count}", *options, "-m", program, *words]


def start(folder: Path, strategy: str, count: int, restarts: int = 0) -> Together:
    """Begin the run in `folder`, or go on with it, by so many processes."""
    folder.mkdir(exist_ok=True)
    if is_run(folder / "run"):
        words = ["train", "--resume", "run"]
    else:
        (folder / "recipe.yaml").write_text(write_yaml(RECIPES[strategy]))
        words = ["train", "recipe.yaml", "--out", "run"]
    log = folder / "output"
    with log.open("ab") as output:
        process = subprocess.Popen(
            torchrun(count, "tests.training.seen", words, f"--max-restarts={restarts}"),
            cwd=folder,
            env=environment() | {"GLOO_SOCKET_IFNAME": "lo"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Together(process, log)


@dataclass(frozen=True)
class Alone:
    """A run of two processes that nothing happened to, in `folder`, and how long it took."""

    folder: Path
    seconds: float


def undisturbed(folder: Path, strategy: str) -> Alone:
    """The run that trials of a strategy are compared with."""
    started = time.perf_counter()
    together = start(folder / strategy, strategy, 2)
    assert together.wait() == 0, together.said()
    return Alone(folder / strategy, time.perf_counter() - started)


def one_killed(folder: Path, strategy: str, alone: Alone, random: Random) -> None:
    """One of two is killed: the launcher starts both again, and the end is the same."""
    together = start(folder, strategy, 2, restarts=3)
    try:
        _wait_for(together, random.uniform(0.3, 1) * alone.seconds)
        workers = together.workers()
        if workers and together.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(random.choice(workers), signal.SIGKILL)
        assert together.wait() == 0, together.said()
    finally:
        together.end()
    assert_same_end(folder / "run", alone.folder / "run")


def launcher_killed(folder: Path, strategy: str, alone: Alone, random: Random) -> None:
    """The launcher is killed: its processes save and stop, and others go on to the same end."""
    together = start(folder, strategy, 2)
    try:
        _wait_for(together, random.uniform(0.3, 1) * alone.seconds)
        workers = together.workers()
        together.process.kill()
        together.process.wait()
        _await(lambda: not any(map(_is_alive, workers)), "workers went on without their launcher")
        assert not is_run(folder / "run") or not holder(folder / "run"), "the run is locked"
    finally:
        together.end()
    _finish(folder, strategy, 2)
    assert_same_end(folder / "run", alone.folder / "run", shifted=True)


def other_numbers(folder: Path, strategy: str, alone: Alone, random: Random) -> None:
    """All of two are killed, then one that goes on; two finish: the same images, losses alike."""
    for count in (2, 1):
        together = start(folder, strategy, count)
        _wait_for(together, random.uniform(0.3, 1) * alone.seconds)
        together.end()
    _finish(folder, strategy, 2)
    assert seen(folder) == seen(alone.folder)
    found, expected = losses(folder), losses(alone.folder)
    assert len(found) == STEPS and found == pytest.approx(expected, rel=WITHIN)


def _finish(folder: Path, strategy: str, count: int) -> None:
    together = start(folder, strategy, count)
    try:
        assert together.wait() == 0, together.said()
    finally:
        together.end()


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    rows = read_rows(folder / "run" / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


def _wait_for(together: Together, seconds: float) -> None:
    """Wait so long, or for the end."""
    with suppress(subprocess.TimeoutExpired):
        together.process.wait(seconds)


def _await(true: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + SECONDS_TO_STOP
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def _is_alive(process: int) -> bool:
    """Whether it has not ended; one that nobody has waited for has."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


KINDS = (one_killed, launcher_killed, other_numbers)


def killed_together(trial: Trial) -> None:
    """One kind of trial after the other, of both strategies."""
    kind = KINDS[trial.number % len(KINDS)]
    strategy = sorted(RECIPES)[trial.number // len(KINDS) % len(RECIPES)]
    kind(trial.folder, strategy, trial.shared(strategy), trial.random)


FAULTS = (
    Fault(
        "F14",
        "two processes under torchrun (DDP, FSDP2): kill -9 of one, of the launcher, or of all "
        "and then of one that goes on alone",
        "nothing hangs; the same number of processes ends bitwise equal, another sees the same "
        "images and has the same losses within 1e-5",
        trials=30,
        short=2,
        run=killed_together,
        prepare=lambda folder: cache(partial(undisturbed, folder)),
    ),
)
