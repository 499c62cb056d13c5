"""F11: figures that are not finite, in the input, the loss or a gradient, under each policy."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
import torch

from mixerkit.data.loader import Batch
from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import NotFinite, Optimizer
from mixerkit.training.loop import train
from mixerkit.training.update import Update
from tests.faults.fault import Fault, Trial
from tests.training.runs import RECIPE

POLICIES = ("stop", "skip", "roll back")
PLACES = ("input", "loss", "gradient")
STEPS = 30


@dataclass
class Poison:
    """What is done to the run at one step, and whether that step changed anything."""

    step: int
    place: str
    value: float
    given: int = 0
    unchanged: bool = True

    def input(self, parts: list[Batch], draw: Random) -> list[Batch]:
        chosen = draw.choice(parts)
        chosen.images.view(-1)[draw.randrange(chosen.images.numel())] = self.value
        return parts


@contextmanager
def poisoned(poison: Poison, draw: Random) -> Any:
    """Every `Update` inside gives the poison at its step, and is watched there."""
    call, micro_batches, loss_of, clip = (
        Update.__call__, Update.micro_batches, Update.loss_of, Update._clip,
    )  # fmt: skip

    def due(update: Update, place: str) -> bool:
        return poison.place == place and update.state.step + 1 == poison.step

    def watched(update: Update, batch: Batch) -> tuple[float, float]:
        at_step = update.state.step + 1 == poison.step
        poison.given += at_step
        before = {name: tensor.clone() for name, tensor in update.state.tensors().items()}
        try:
            return call(update, batch)
        finally:
            after = update.state.tensors()
            if at_step:
                same = after.keys() == before.keys() and all(
                    torch.equal(after[name], before[name]) for name in before
                )
                poison.unchanged &= same and all(
                    parameter.grad is None for parameter in update.state.model.parameters()
                )

    def in_input(update: Update, batch: Batch) -> list[Batch]:
        parts = micro_batches(update, batch)
        return poison.input(parts, draw) if due(update, "input") else parts

    def in_loss(update: Update, *arguments: Any) -> torch.Tensor:
        loss = loss_of(update, *arguments)
        return loss * poison.value if due(update, "loss") else loss

    def in_gradient(update: Update) -> float:
        if due(update, "gradient"):
            parameters = [p for p in update.state.model.parameters() if p.grad is not None]
            gradient = draw.choice(parameters).grad
            gradient.view(-1)[draw.randrange(gradient.numel())] = poison.value
        return clip(update)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "__call__", watched)
        patch.setattr(Update, "micro_batches", in_input)
        patch.setattr(Update, "loss_of", in_loss)
        patch.setattr(Update, "_clip", in_gradient)
        yield


def run(trial: Trial) -> None:
    draw, policy = trial.random, POLICIES[trial.number % 3]
    value = draw.choice([float("nan"), float("inf"), float("-inf")])
    poison = Poison(draw.randint(1, STEPS), draw.choice(PLACES), value)
    optimizer = Optimizer(name=draw.choice(["muon", "adamw", "sgd"]), clip=draw.choice([0.0, 1.0]))
    recipe = replace(
        RECIPE, optimizer=optimizer, not_finite=NotFinite(policy), compile="off",
        ema=draw.choice([0.0, 0.9]), threads=1,
    )  # fmt: skip
    with poisoned(poison, draw):
        if policy == "stop":
            with pytest.raises(RunFailed, match=f"step {poison.step}"):
                train(recipe, trial.folder / "run")
        else:
            assert train(recipe, trial.folder / "run").steps == STEPS
    assert poison.given == 1, "the step came more often than once"
    assert poison.unchanged


FAULTS = (
    Fault(
        "F11",
        "NaN or infinity in the input, the loss or a gradient; stop, skip and roll back",
        "weights, averages and optimiser are as before the step; the run ends as its policy says",
        trials=150,
        short=6,
        run=run,
        counts="runs",
    ),
)
