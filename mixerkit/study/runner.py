"""A study at work: each configuration is one run folder, whoever trains it.

    study.json                 what the study is; all who work on it must mean the same
    runs/CONFIGURATION/        one run
    claims/CONFIGURATION/lock  held by the process that works on it, until its row is written
    rows/CONFIGURATION.json    what it came to

Any number of processes, on any machines that share the folder, can work on one study: each takes
what nobody works on and nobody has finished. A run that was killed is gone on with. A run whose
figures became NaN has its row too; what else goes wrong may be this machine's fault, so the
configuration is left for others, or for later.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.files import make_folder, write_atomic
from mixerkit.checkpoint.lock import Lock, Taken, holder
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.step_folders import steps_in
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.study.description import described, difference, goes_with, understood
from mixerkit.study.grid import Configuration, Study, Trials
from mixerkit.study.peers import peer_of
from mixerkit.study.permutation import Reordered, pixel_order
from mixerkit.study.rows import Row, figures, sentence
from mixerkit.training.interrupt import Interrupt, Interrupted
from mixerkit.training.loop import train
from mixerkit.training.progress import Progress, Silent, Watcher
from mixerkit.training.state import FiguresNotFinite

Say = Callable[[str], None]
WEIGHTS = "weights"
SECONDS_BETWEEN_LOOKS = 5.0
"""While others work on all that is left."""


@dataclass
class StudyFolder:
    """A study and where it is worked on."""

    study: Study | Trials
    path: Path
    configurations: list[Configuration] = field(init=False)

    def __post_init__(self) -> None:
        self.configurations = self.study.configurations()

    def begin(self) -> None:
        """Make the folder, or see that it is of this study; trials that it does not know yet are
        added to it."""
        found, meant = self._found(), self._described()
        if found is None:
            for name in ("rows", "runs", "claims"):
                make_folder(self.path / name)
        elif isinstance(self.study, Trials):
            both = found["configurations"] | meant["configurations"]
            if both == found["configurations"]:
                return
            meant = found | {"configurations": both}
        else:
            return
        write_atomic(self.path / "study.json", json_bytes(meant))

    def is_begun(self) -> bool:
        """Whether somebody has begun it; `UserError` where the folder is another study's."""
        return self._found() is not None

    def _found(self) -> dict[str, Any] | None:
        """What is begun in the folder, as it was described; None where nothing is. `UserError`
        where it does not go together with this study."""
        file = self.path / "study.json"
        if not file.exists():
            return None
        written = read_json(file)
        found, meant = understood(written), understood(self._described())
        if found == meant or (isinstance(self.study, Trials) and goes_with(found, meant)):
            return written
        if found.get("name") == meant["name"] and found.get(WEIGHTS) != meant.get(WEIGHTS):
            known, now = (str(one.get(WEIGHTS))[:12] for one in (found, meant))
            raise UserError(
                f"The trials in {self.path} begin from other weights than the model has now (their "
                f"checksum in {file} is {known}, now it is {now}): give another --folder."
            )
        raise UserError(
            f"{self.path} holds another study, or this one with other settings: "
            f"{difference(found, meant)}. Give another --folder, or take that one away ({file} "
            f"says all that it is)."
        )

    def _described(self) -> dict[str, Any]:
        every, weights = self.configurations, {}
        if isinstance(self.study, Trials):
            every = list(self.study.possible) or every
            weights = {WEIGHTS: self.study.weights}
        configurations = {one.name: described(one) for one in every}
        return {"name": self.study.name} | weights | {"configurations": configurations}

    def tried(self) -> list[dict[str, str]]:
        """Levels of every configuration of the folder, whoever added it, that has been begun to be
        trained."""
        known = (self._found() or {}).get("configurations", {})
        return [each["levels"] for name, each in known.items() if self._is_tried(name)]

    def _is_tried(self, name: str) -> bool:
        return self._row_file(name).exists() or is_run(self._run_folder(name))

    def run_of(self, one: Configuration) -> Path:
        """Its run folder."""
        return self._run_folder(one.name)

    def _run_folder(self, name: str) -> Path:
        return self.path / "runs" / name

    def claim_of(self, one: Configuration) -> Path:
        """The folder whose lock says who works on it."""
        return self.path / "claims" / one.name

    def _row_file(self, name: str) -> Path:
        return self.path / "rows" / f"{name}.json"

    def row_of(self, one: Configuration) -> Row | None:
        """What it came to; None as long as that is not known."""
        path = self._row_file(one.name)
        return read_json(path) if path.exists() else None

    def rows(self) -> list[tuple[Configuration, Row]]:
        """What is known so far, in the order of the configurations."""
        found = ((one, self.row_of(one)) for one in self.configurations)
        return [(one, row) for one, row in found if row is not None]

    def note(self, one: Configuration, row: Row) -> None:
        """Write down what it came to; by who holds its claim."""
        write_atomic(self._row_file(one.name), json_bytes(row))

    def forget_failures(self) -> int:
        """Let runs whose figures became NaN be tried again, and say how many those are."""
        failed = [one for one, row in self.rows() if "error" in row]
        for one in failed:
            self._row_file(one.name).unlink(missing_ok=True)
        return len(failed)


@dataclass
class Work:
    """One process's part in a study. `given_up`: configurations that this process could not train,
    and why; `stopped`: the signal that ended it, or 0."""

    folder: StudyFolder
    say: Say
    watch: Watcher = field(default_factory=Silent)
    given_up: dict[str, str] = field(default_factory=dict)
    stopped: int = 0
    current: Configuration | None = None
    """What this process trains now."""
    _waits_for: str = ""

    def do(self) -> None:
        """Train what nobody has trained until nothing is left that this process can train."""
        self.folder.begin()
        interrupt = Interrupt()
        watch = _Forwarding(self.watch, interrupt)
        with interrupt.listening():
            try:
                while self._pass(interrupt, watch):
                    self._wait(interrupt)
            except Interrupted:
                self.stopped = interrupt.received

    def _left(self) -> list[Configuration]:
        folder = self.folder
        undone = [one for one in folder.configurations if one.name not in self.given_up]
        return [one for one in undone if folder.row_of(one) is None]

    def _pass(self, interrupt: Interrupt, watch: Watcher) -> bool:
        """Go through what is left once; whether somebody else still works on some of it."""
        for one in self._left():
            interrupt.poll()
            claim = self.folder.claim_of(one)
            if holder(claim):
                continue
            make_folder(claim)
            try:
                lock = Lock(claim)
            except Taken:
                continue
            try:
                self._claimed(one, watch, interrupt)
            finally:
                lock.release()
        return bool(self._left())

    def _claimed(self, one: Configuration, watch: Watcher, interrupt: Interrupt) -> None:
        """Train a configuration that nobody else works on, unless it was finished just now."""
        if self.folder.row_of(one) is not None:
            return
        self.current = one
        try:
            row = self._train(one, watch, interrupt)
        except Exception as error:  # whatever it is, others may not meet it, and the rest goes on
            name = (
                "" if isinstance(error, UserError | RuntimeError) else f"{type(error).__name__}: "
            )
            self.given_up[one.name] = f"{name}{error}"
            self.say(f"given up: {one.name}: {self.given_up[one.name].splitlines()[0]}")
            return
        self.folder.note(one, row)
        done, count = len(self.folder.rows()), len(self.folder.configurations)
        self.say(f"{done} of {count}: {one.name}: {sentence(row)}")

    def _train(self, one: Configuration, watch: Watcher, interrupt: Interrupt) -> Row:
        path = self.folder.run_of(one)
        about = {"configuration": one.name, "levels": one.levels, "seed": one.recipe.seed}
        begun = is_run(path)
        if begun:
            self.say(f"{one.name}: {_goes_on(path)}")
        try:
            result = train(one.recipe, path, resume=begun, model=model_of(one), watch=watch)
        except FiguresNotFinite as error:
            return about | {"error": str(error)}
        if result.interrupted:
            interrupt.heed(result.interrupted)
        return about | figures(one, path, result)

    def _wait(self, interrupt: Interrupt) -> None:
        """Look again in a while; say once for whom."""
        others = {one.name: holder(self.folder.claim_of(one)) for one in self._left()}
        text = ", ".join(f"{name}, taken by {who}" for name, who in others.items() if who)
        if text and text != self._waits_for:
            self._waits_for = text
            self.say(f"waiting for {text}")
        until = time.monotonic() + SECONDS_BETWEEN_LOOKS
        while time.monotonic() < until:
            interrupt.poll()
            time.sleep(0.1)


def _goes_on(path: Path) -> str:
    """From where a run goes on, that was begun before."""
    saved = max(steps_in(path / "checkpoints"), default=0)
    return f"goes on from step {saved:,}" if saved else "starts over: no step of it was saved"


def model_of(one: Configuration) -> nn.Module | None:
    """What is trained in the place of the recipe's own model, with fresh weights; None for that."""
    if not one.peer and not one.order:
        return None
    config, seed = one.recipe.model, one.recipe.seed
    torch.manual_seed(seed)
    model = peer_of(one.peer, config) if one.peer else MlpMixer(config)
    return Reordered(model, pixel_order(config, one.order, seed)) if one.order else model


class _Forwarding:
    """A watcher that hands a signal that came while a run was set up to the run."""

    def __init__(self, watch: Watcher, interrupt: Interrupt) -> None:
        self.watch, self.interrupt, self.forwarded = watch, interrupt, False

    def say(self, line: str) -> None:
        """Pass it on."""
        self.watch.say(line)

    def progress(self, now: Progress) -> None:
        """Pass it on."""
        self.watch.progress(now)
        if self.interrupt.received and not self.forwarded:
            self.forwarded = True
            signal.raise_signal(self.interrupt.received)
