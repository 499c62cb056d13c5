"""What a run would do and cost, before it is started: `mixer train --dry-run`."""

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from mixerkit.data.sources import Splits
from mixerkit.device import GIB
from mixerkit.model.cost import cost
from mixerkit.spec.recipe import Recipe
from mixerkit.training.initial import first_stage, initial_weights
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import (
    Steps,
    class_counts,
    count_steps,
    open_data,
    training_loader,
)
from mixerkit.training.state import TrainingState, fresh_state
from mixerkit.training.update import Update

WARM_UP_STEPS, MEASURED_STEPS = 2, 8


@dataclass(frozen=True)
class Plan:
    """Figures of a run that has not been started. `seconds` are of training alone, from a
    few real steps on this machine; `state_bytes` are those of optimiser and averaged weights,
    `sam_bytes` those of the second weights and gradients that `optimizer.sam` takes."""

    data: str
    classes: int
    training_images: int
    validation_images: int
    test_images: int
    parameters: int
    macs: int
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    batch_size: int
    weights_bytes: int
    state_bytes: int
    sam_bytes: int
    activation_bytes: int
    seconds_per_step: float
    seconds: float
    first: "Plan | None" = None
    """Of the recipe that is trained first, where there is one."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(what, how much) for people."""
        held_out = f"{self.validation_images:,} for validation, {self.test_images:,} for the test"
        kept = self.weights_bytes * 2 + self.state_bytes + self.sam_bytes
        memory = kept + self.activation_bytes
        twice = ", each computed twice" if self.sam_bytes else ""
        return [
            ("data", self.data),
            ("images", f"{self.training_images:,} for training, {held_out}"),
            ("classes", str(self.classes)),
            ("model", f"{self.parameters:,} parameters, {self.macs / 1e6:,.1f} M MACs an image"),
            (
                "steps",
                f"{self.steps:,} of {self.batch_size} images ({self.steps_per_epoch:,} an epoch, "
                f"{self.warmup_steps:,} of warm-up){twice}",
            ),
            ("memory", f"{memory / GIB:.2f} GiB for weights, gradients, optimiser, activations"),
            (
                "time",
                f"about {duration_text(self.seconds)} here ({self.seconds_per_step:.3f} s a "
                f"step, measured), and evaluation",
            ),
            *([("first", self.first.in_short())] if self.first else []),
        ]

    def in_short(self) -> str:
        """What is trained before, in one line."""
        return (
            f"{self.steps:,} steps of {self.macs / 1e6:,.1f} M MACs an image, about "
            f"{duration_text(self.seconds)} more"
        )


def duration_text(seconds: float) -> str:
    """`"2 min 5 s"`, `"3 h 20 min"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plan(recipe: Recipe) -> Plan:
    """Open the data, take a few steps with a throw-away model, and add up. Writes nothing."""
    recipe, splits = open_data(recipe)
    initial_weights(recipe, splits.train.class_names)  # refuses what could not begin
    stage = first_stage(recipe)
    steps = count_steps(recipe, len(splits.train))
    priced = cost(recipe.model)
    state, seconds = _measure(recipe, splits, steps)
    micro_batch = recipe.batch_size // recipe.accumulation
    state_bytes = sum(t.nbytes for t in state.tensors().values()) - 4 * priced.parameters
    return Plan(
        data=splits.origin,
        classes=recipe.model.num_classes,
        training_images=len(splits.train),
        validation_images=len(splits.validation) if splits.validation else 0,
        test_images=len(splits.test) if splits.test else 0,
        parameters=priced.parameters,
        macs=priced.macs,
        steps=steps.total,
        steps_per_epoch=steps.per_epoch,
        warmup_steps=steps.warmup,
        batch_size=recipe.batch_size,
        weights_bytes=4 * priced.parameters,
        state_bytes=state_bytes,
        sam_bytes=8 * priced.parameters if recipe.optimizer.sam else 0,
        activation_bytes=priced.activation_bytes(micro_batch),
        seconds_per_step=seconds,
        seconds=seconds * steps.total,
        first=plan(stage) if stage else None,
    )


def _measure(recipe: Recipe, splits: Splits, steps: Steps) -> tuple[TrainingState, float]:
    """A few steps on real batches: the state they leave and the median seconds of a step."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    state = fresh_state(recipe)
    update = Update(recipe, steps, TargetLoss(recipe.loss, class_counts(splits.train)), state)
    seconds = []
    batches = training_loader(recipe, splits).epoch(0)
    for _ in range(min(WARM_UP_STEPS + MEASURED_STEPS, steps.per_epoch)):
        start = time.perf_counter()
        update(next(batches))
        seconds.append(time.perf_counter() - start)
    return state, median(seconds[WARM_UP_STEPS:] or seconds)
