"""F11: figures that are not finite, in the input, the loss or a gradient, under each policy.

Also weights that were damaged, saved, and only then give such figures, with every batch.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from mixerkit.checkpoint.rows import read_rows
from mixerkit.checkpoint.verification import verify_run
from mixerkit.data.loader import Batch
from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import NotFinite, Optimizer, Recipe, Save
from mixerkit.training.loop import train
from mixerkit.training.update import Update
from tests.faults.fault import Fault, Trial
from tests.faults.sample import newest_step
from tests.training.runs import RECIPE, StopAt, assert_same_end

DAMAGE = "damage"
KINDS = ("stop", "skip", "roll back", DAMAGE)
PLACES = ("input", "loss", "gradient")
STEPS, SAVE_EVERY, MOST = 30, 7, 3
"""Steps of the run, of them between two saves, and poisoned at most."""


@dataclass
class Poison:
    """`steps`: step → where a figure becomes `value`. `spoils`: weights, averages and optimisers
    are changed there too, which only a run that truly goes back gets rid of."""

    steps: dict[int, str]
    value: float
    spoils: bool = False
    tried: list[int] = field(default_factory=list)
    """The steps of all updates that were tried, in their order."""
    unchanged: bool = True
    """Whether no poisoned update has changed anything."""

    def put(self, tensor: torch.Tensor, draw: Random) -> None:
        """The value, somewhere in the tensor."""
        tensor.view(-1)[draw.randrange(tensor.numel())] = self.value


@contextmanager
def poisoned(poison: Poison, draw: Random) -> Iterator[None]:
    """Every `Update` inside gives the poison at its steps, and is watched there."""
    call, micro_batches, loss_of, clip = (
        Update.__call__, Update.micro_batches, Update.loss_of, Update._clip,
    )  # fmt: skip

    def due(update: Update, place: str) -> bool:
        return poison.steps.get(update.state.step + 1) == place

    def watched(update: Update, batch: Batch) -> tuple[float, float]:
        step, state = update.state.step + 1, update.state
        poison.tried.append(step)
        if step in poison.steps and poison.spoils:
            for tensor in state.tensors().values():
                tensor.detach().mul_(1.5)
        before = {name: tensor.clone() for name, tensor in state.tensors().items()}
        try:
            return call(update, batch)
        finally:
            if step in poison.steps:
                poison.unchanged &= is_as(before, state.tensors()) and all(
                    parameter.grad is None for parameter in state.model.parameters()
                )

    def in_input(update: Update, batch: Batch) -> list[Batch]:
        parts = micro_batches(update, batch)
        if due(update, "input"):
            poison.put(draw.choice(parts).images, draw)
        return parts

    def in_loss(update: Update, *arguments: Any) -> torch.Tensor:
        loss = loss_of(update, *arguments)
        return loss * poison.value if due(update, "loss") else loss

    def in_gradient(update: Update) -> float:
        if due(update, "gradient"):
            parameters = [p for p in update.state.model.parameters() if p.grad is not None]
            poison.put(draw.choice(parameters).grad, draw)
        return clip(update)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "__call__", watched)
        patch.setattr(Update, "micro_batches", in_input)
        patch.setattr(Update, "loss_of", in_loss)
        patch.setattr(Update, "_clip", in_gradient)
        yield


def is_as(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Same names, same bits."""
    return after.keys() == before.keys() and all(
        torch.equal(after[name], before[name]) for name in before
    )


@dataclass
class Damage:
    """The update of step `at` puts a mark into the weights, with which every batch from step
    `until` on gives NaN; again whenever it is made, or `once`, as by a fault of the machine."""

    at: int
    until: int
    once: bool
    done: int = 0


MARK = 1e12


@contextmanager
def damaged(damage: Damage) -> Iterator[None]:
    """Every `Update` inside does the damage."""
    apply, loss_of = Update._apply, Update.loss_of

    def damaging(update: Update) -> None:
        apply(update)
        if update.state.step + 1 == damage.at and not (damage.once and damage.done):
            damage.done += 1
            with torch.no_grad():
                update.state.model.head.bias[0] = MARK

    def failing(update: Update, *arguments: Any) -> torch.Tensor:
        marked = update.state.model.head.bias[0] > MARK / 2
        loss = loss_of(update, *arguments)
        return loss * float("nan") if marked and update.state.step + 1 >= damage.until else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "_apply", damaging)
        patch.setattr(Update, "loss_of", failing)
        yield


# -- a trial ------------------------------------------------------------------------------


def run(trial: Trial) -> None:
    """One policy of the three, in turn, with an optimiser and an average by chance; or damage."""
    draw, kind = trial.random, KINDS[trial.number % len(KINDS)]
    optimizer = Optimizer(name=draw.choice(["muon", "adamw", "sgd"]), clip=draw.choice([0.0, 1.0]))
    recipe = replace(
        RECIPE, optimizer=optimizer, save=Save(every=f"{SAVE_EVERY} steps"), compile="off",
        ema=draw.choice([0.0, 0.9]), threads=1,
    )  # fmt: skip
    if kind == DAMAGE:
        gets_behind(trial.folder, recipe, draw)
        return
    steps = some_steps(draw, apart=kind == "roll back")
    poison = Poison(
        {step: draw.choice(PLACES) for step in steps},
        draw.choice([float("nan"), float("inf"), float("-inf")]),
        spoils=kind == "roll back",
    )
    if kind == "stop":
        stops(trial.folder, recipe, poison, draw)
    else:
        leaves_out(trial.folder, with_policy(recipe, kind), poison, draw)
    assert poison.unchanged


def some_steps(draw: Random, apart: bool) -> list[int]:
    """One step or a few, in their order; `apart`: with others between, for two in a row that fail
    with the same weights are another matter, see `gets_behind`."""
    while True:
        steps = sorted(draw.sample(range(1, STEPS + 1), draw.randint(1, MOST)))
        if not apart or all(after - before > 1 for before, after in pairwise(steps)):
            return steps


def with_policy(recipe: Recipe, policy: Any) -> Recipe:
    return replace(recipe, not_finite=NotFinite(policy))


def stops(folder: Path, recipe: Recipe, poison: Poison, draw: Random) -> None:
    """The run stops with its last checkpoint, and ends as if nothing had happened once gone on with
    by a machine that computes well."""
    first = min(poison.steps)
    with poisoned(poison, draw), pytest.raises(RunFailed, match=f"step {first}"):
        train(with_policy(recipe, "stop"), folder / "run")
    assert poison.tried == [*range(1, first + 1)]
    assert newest_step(folder / "run") == saved_before(first)
    train(with_policy(recipe, "stop"), folder / "run", resume=True)
    train(with_policy(recipe, "stop"), folder / "clean")
    assert_same_end(folder / "clean", folder / "run")


def leaves_out(folder: Path, recipe: Recipe, poison: Poison, draw: Random) -> None:
    """The run says where it goes on from, does so, and logs each batch that it leaves out. Gone
    back or not, it ends the same."""
    goes_back, steps = recipe.not_finite.policy == "roll back", sorted(poison.steps)
    heard = StopAt(STEPS + 1, signal.SIGTERM)  # never
    with poisoned(poison, draw):
        assert train(recipe, folder / "run", watch=heard).steps == STEPS
    assert poison.tried == tries(steps, goes_back)
    said = [line for line in heard.lines if "going on from step" in line]
    starts = [saved_before(step) if goes_back else step - 1 for step in steps]
    assert len(said) == len(starts), said
    for line, start in zip(said, starts, strict=True):
        assert line.endswith(f"going on from step {start}."), line
    rows = read_rows(folder / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "left out"] == steps
    trained = [row["step"] for row in rows if row["split"] == "train"]
    assert trained == [step for step in range(1, STEPS + 1) if step not in steps]
    if goes_back:
        with poisoned(replace(poison, spoils=False, tried=[]), draw):
            train(with_policy(recipe, "skip"), folder / "skipped")
        assert_same_end(folder / "skipped", folder / "run")


def gets_behind(folder: Path, recipe: Recipe, draw: Random) -> None:
    """The run gets behind the damage, also when that is in checkpoints; it ends as a run that never
    used the batches which were left out, also when it is stopped and resumed on the way."""
    recipe = with_policy(recipe, "roll back")
    at = draw.randint(1, STEPS - 5)
    damage = Damage(at, at + draw.randint(1, 3), once=draw.random() < 0.3)
    with damaged(damage):
        assert train(recipe, folder / "run").steps == STEPS
    assert damage.done, "no damage"
    assert_sound(folder / "run")
    rows = read_rows(folder / "run" / "metrics.jsonl")
    left_out = [row["step"] for row in rows if row["split"] == "left out"]
    assert left_out == [*range(left_out[0], left_out[-1] + 1)], left_out
    assert damage.until in left_out and (damage.once or at in left_out), left_out
    assert len(left_out) in (1, 3, 7) or left_out[0] == 1, left_out  # there is none before
    with poisoned(Poison(dict.fromkeys(left_out, "loss"), float("nan")), draw):
        train(with_policy(recipe, "skip"), folder / "skipped")
    assert_same_end(folder / "skipped", folder / "run")
    if not damage.once:
        with damaged(damage), pytest.MonkeyPatch.context() as patch:
            patch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
            stops, begun, done = sorted(draw.sample(range(1, STEPS), 3)), False, 0
            while done < STEPS:
                stop = stops.pop(0) if stops else STEPS + 1
                heard = StopBehind(stop, signal.SIGTERM)
                done = train(recipe, folder / "stopped", resume=begun, watch=heard).steps
                begun = True
                assert_sound(folder / "stopped")
        assert_same_end(folder / "skipped", folder / "stopped")


class StopBehind(StopAt):
    """Also where the run went back, before it is as far as it was."""

    def say(self, line: str) -> None:
        super().say(line)
        if "going on from step" in line:
            self.step = 0


def assert_sound(run: Path) -> None:
    """Nothing that the run took away itself is missed."""
    verified = verify_run(run)
    assert verified.sound, [part.problem for part in verified.parts if part.problem]


def saved_before(step: int) -> int:
    """The newest checkpoint's step when `step` is tried for the first time."""
    return (step - 1) // SAVE_EVERY * SAVE_EVERY


def tries(poisoned_steps: list[int], goes_back: bool) -> list[int]:
    """The steps in the order in which they must be tried: those after a checkpoint again."""
    tried: list[int] = []
    for step in range(1, STEPS + 1):
        tried.append(step)
        if step in poisoned_steps and goes_back:
            again = range(saved_before(step) + 1, step)
            tried += [earlier for earlier in again if earlier not in poisoned_steps]
    return tried


FAULTS = (
    Fault(
        "F11",
        "NaN or infinity in input, loss or gradient at one to three steps; stop, skip, roll back; "
        "weights that were damaged and saved before they fail",
        "that update changes nothing, each batch left out is logged once; gone on with, or "
        "rolled back, also behind damaged checkpoints, the run ends bitwise as it must, and sound",
        trials=200,
        short=4,
        run=run,
        counts="runs",
    ),
)
