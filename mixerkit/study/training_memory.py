"""`mixer bench training-memory`: what a training step of B/16 takes, in memory and time, ours
against timm's.

Each trial is a fresh process that makes a model and an optimiser and takes a few steps on noise:
how much its peak memory grew, weights and optimiser included, and the median step after the first.
Ours is the trainer's own step, with its checks; timm's is forward, backward and AdamW.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.benchmark.measure import in_fresh_process, peak_memory
from mixerkit.benchmark.peers import timm_mixer
from mixerkit.data.loader import Batch
from mixerkit.data.mixing import one_hot
from mixerkit.results import write_results
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Optimizer, Recipe
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import Steps
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update

Say = Callable[[str], None]

STEPS, ROUNDS, BATCH = 4, 3, 16
REFERENCE = "timm"
CONTENDERS = {
    REFERENCE: ("timm", 1, False),
    "timm, its activation checkpointing": ("timm", 1, True),
    "mixerkit": ("mixerkit", 1, False),
    "mixerkit, 2 micro-batches": ("mixerkit", 2, False),
    "mixerkit, 4 micro-batches": ("mixerkit", 4, False),
    "mixerkit, activation checkpointing": ("mixerkit", 1, True),
    "mixerkit, 2 micro-batches, activation checkpointing": ("mixerkit", 2, True),
}
"""Name → whose step, micro-batches, activation checkpointing."""
IN_QUICK = (REFERENCE, "mixerkit", "mixerkit, 4 micro-batches")
TRIAL = "from mixerkit.study.training_memory import trial; trial({label!r}, {name!r}, {steps})"


@dataclass(frozen=True)
class Trial:
    """Bytes by which the process grew, and seconds of each step but the first."""

    growth: int
    seconds: list[float]


def recipe_of(label: str, accumulation: int, checkpointing: bool) -> Recipe:
    """AdamW on a batch of 16 images of 1000 classes."""
    return Recipe(
        model=variant(label),
        optimizer=Optimizer(name="adamw"),
        batch_size=BATCH,
        accumulation=accumulation,
        activation_checkpointing=checkpointing,
    )


def noise(recipe: Recipe) -> Batch:
    """A batch of the recipe's shapes."""
    size, classes = recipe.batch_size, recipe.model.num_classes
    images = torch.randn(size, recipe.model.in_channels, *recipe.model.image_hw)
    return Batch(images, one_hot(np.arange(size) % classes, classes))


def our_step(recipe: Recipe) -> Callable[[], object]:
    """The trainer's step."""
    total = 10**9
    state = fresh_state(recipe)
    loss = TargetLoss(recipe.loss, np.ones(recipe.model.num_classes))
    update = Update(recipe, Steps(total, total, 0, total, total, total), loss, state)
    batch = noise(recipe)
    return lambda: update(batch)


def timm_step(recipe: Recipe) -> Callable[[], object]:
    """Forward, backward and the same optimiser with timm's model."""
    model: Any = timm_mixer(recipe.model)
    model.set_grad_checkpointing(recipe.activation_checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batch = noise(recipe)

    def step() -> None:
        nn.functional.cross_entropy(model(batch.images), batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def trial(label: str, name: str, steps: int) -> None:
    """Print what one contender takes, as JSON; called in a process of its own."""
    import time

    whose, accumulation, checkpointing = CONTENDERS[name]
    recipe = recipe_of(label, accumulation, checkpointing)
    seconds: list[float] = []
    step_of = our_step if whose == "mixerkit" else timm_step
    step_of(replace(recipe, model=replace(recipe.model, width=8, depth=1)))()  # imports everything

    def once() -> None:
        step = step_of(recipe)
        for _ in range(steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)

    growth = peak_memory(once)
    print(json.dumps({"growth": growth, "seconds": seconds[1:]}))


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Memory and time of each contender in interleaved fresh processes, written to `out`."""
    label, rounds, steps = ("S/32", 1, 2) if quick else ("B/16", ROUNDS, STEPS)
    found: dict[str, list[Trial]] = {name: [] for name in (IN_QUICK if quick else CONTENDERS)}
    for number in range(rounds):
        for name, trials in found.items():
            code = TRIAL.format(label=label, name=name, steps=steps)
            trials.append(Trial(**in_fresh_process(code)))
            say(
                f"round {number + 1} of {rounds}: {name}: {trials[-1].growth / 2**30:.2f} GiB, "
                f"{median(trials[-1].seconds):.2f} s a step"
            )
    rows = [_row(name, trials, found[REFERENCE]) for name, trials in found.items()]
    write_results(
        out,
        name="training-memory",
        command="mixer bench training-memory" + (" --quick" if quick else ""),
        settings={
            "model": label,
            "batch_size": BATCH,
            "optimizer": "adamw",
            "rounds": rounds,
            "steps": steps,
            "threads": torch.get_num_threads(),
        },
        rows=rows,
    )
    return rows


def _row(name: str, trials: list[Trial], reference: list[Trial]) -> dict[str, Any]:
    """Ratios are medians over the rounds, each within its round."""
    both = list(zip(trials, reference, strict=True))
    return {
        "contender": name,
        "peak_growth_bytes": median(trial.growth for trial in trials),
        "seconds_per_step": median(median(trial.seconds) for trial in trials),
        "memory_over_timm": median(own.growth / theirs.growth for own, theirs in both),
        "time_over_timm": median(median(own.seconds) / median(t.seconds) for own, t in both),
    }
