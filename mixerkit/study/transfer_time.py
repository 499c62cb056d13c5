"""How long the transfer protocol would take on this machine, from training steps on noise."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mixerkit.data.loader import Batch
from mixerkit.device import device_here
from mixerkit.model.cost import cost
from mixerkit.spec.recipe import Recipe
from mixerkit.study.transfer_plan import Planned
from mixerkit.study.transfer_suite import batched
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import Steps
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update

MOST_MACS = 2e11
"""Multiply-adds of a step that is timed on a processor: seconds, of large models too."""
STEPS = Steps(total=3, per_epoch=3, warmup=0, log_every=3, evaluate_every=3, save_every=3)


@dataclass(frozen=True)
class Expected:
    """Seconds of all trials on this machine; reading images, and writing checkpoints of
    `checkpoint_bytes`, come on top."""

    training: float
    measuring: float
    checkpoints: int
    checkpoint_bytes: int


def expected(plans: Sequence[Planned]) -> Expected:
    """Of everything. Every task has the same model but for its head."""
    rate = macs_per_second(plans[0].task.recipe)
    measuring = sum(plan.measured * cost(plan.task.recipe.model).macs for plan in plans)
    return Expected(
        sum(plan.macs for plan in plans) / rate,
        measuring / rate,
        sum(plan.saves * plan.trials for plan in plans),
        # weights and momentum in float32
        max(8 * cost(plan.task.recipe.model).parameters for plan in plans),
    )


def macs_per_second(recipe: Recipe) -> float:
    """Multiply-adds of training: of the faster of two steps, after one that prepares memory."""
    image = 3 * cost(recipe.model).macs  # backward takes twice the forward pass
    micro_batch = recipe.batch_size // recipe.accumulation
    fits = micro_batch if device_here().type == "cuda" else max(1, int(MOST_MACS / image))
    count = min(micro_batch, fits)
    small = batched(recipe, count)
    classes = small.model.num_classes
    update = Update(small, STEPS, TargetLoss(small.loss, np.ones(classes)), fresh_state(small))
    images = torch.randn(count, small.model.in_channels, *small.model.image_hw)
    batch = Batch(images, torch.full((count, classes), 1 / classes))
    return image * count / min([_seconds(update, batch) for _ in range(STEPS.total)][1:])


def _seconds(update: Update, batch: Batch) -> float:
    start = time.perf_counter()
    update(batch)
    return time.perf_counter() - start
