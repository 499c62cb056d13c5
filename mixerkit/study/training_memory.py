"""`mixer bench training-memory`: what a training step of B/16 takes, in memory and time, ours
against timm's.

Each trial is a fresh process that makes a model and an optimiser and takes a few steps on noise:
how much its peak memory grew, weights and optimiser included, and the median step after the first
ones. Ours is the trainer's own step, with its checks; timm's is forward, backward and AdamW. Where
there is a GPU, both run there, in bfloat16, eager and compiled; both take their images from the
processor's memory at every step.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mixerkit.benchmark.measure import in_fresh_process, peak_device_memory, peak_memory
from mixerkit.benchmark.peers import timm_mixer
from mixerkit.data.loader import Batch
from mixerkit.data.mixing import one_hot
from mixerkit.device import GIB, device_here
from mixerkit.results import write_results
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Optimizer, Precision, Recipe
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import Steps
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often: so many rounds of fresh processes, each with `warmup` steps
    that do not count and `steps` that do."""

    label: str
    batch_size: int
    precision: Precision
    rounds: int
    warmup: int
    steps: int


FULL = Setting("B/16", 16, "float32", rounds=3, warmup=1, steps=3)
QUICK = Setting("S/32", 16, "float32", rounds=1, warmup=1, steps=1)
ON_GPU = Setting("B/16", 128, "bfloat16", rounds=3, warmup=5, steps=20)
QUICK_ON_GPU = Setting("S/32", 128, "bfloat16", rounds=1, warmup=3, steps=5)


@dataclass(frozen=True)
class Contender:
    """Whose step, and how the memory is kept low."""

    whose: Literal["timm", "mixerkit"]
    micro_batches: int = 1
    checkpointing: bool = False
    compiled: bool = False

    def recipe(self, setting: Setting) -> Recipe:
        """AdamW on images of 1000 classes."""
        return Recipe(
            model=variant(setting.label),
            optimizer=Optimizer(name="adamw"),
            batch_size=setting.batch_size,
            precision=setting.precision,
            accumulation=self.micro_batches,
            activation_checkpointing=self.checkpointing,
        )


REFERENCE = "timm"
CONTENDERS = {
    REFERENCE: Contender("timm"),
    "timm, its activation checkpointing": Contender("timm", checkpointing=True),
    "mixerkit": Contender("mixerkit"),
    "mixerkit, 4 micro-batches": Contender("mixerkit", 4),
    "mixerkit, 8 micro-batches": Contender("mixerkit", 8),
    "mixerkit, activation checkpointing": Contender("mixerkit", checkpointing=True),
}
COMPILED = {
    "timm, compiled": Contender("timm", compiled=True),
    "mixerkit, compiled": Contender("mixerkit", compiled=True),
}
"""Where there is a GPU."""
IN_QUICK = (REFERENCE, "mixerkit", "mixerkit, 4 micro-batches")
TRIAL = "from mixerkit.study.training_memory import trial; trial({name!r}, {quick})"


@dataclass(frozen=True)
class Trial:
    """Bytes by which the memory grew, and seconds of each step that counts."""

    growth: int
    seconds: list[float]


def setting_here(quick: bool) -> Setting:
    """For this machine."""
    if device_here().type == "cuda":
        return QUICK_ON_GPU if quick else ON_GPU
    return QUICK if quick else FULL


def contenders_here(quick: bool) -> dict[str, Contender]:
    """Who is measured on this machine."""
    if quick:
        return {name: CONTENDERS[name] for name in IN_QUICK}
    return CONTENDERS | (COMPILED if device_here().type == "cuda" else {})


def noise(recipe: Recipe) -> Batch:
    """A batch of the recipe's shapes."""
    size, classes = recipe.batch_size, recipe.model.num_classes
    images = torch.randn(size, recipe.model.in_channels, *recipe.model.image_hw)
    return Batch(images, one_hot(np.arange(size) % classes, classes))


def our_step(recipe: Recipe, compiled: bool = False) -> Callable[[], object]:
    """The trainer's step."""
    total = 10**9
    state = fresh_state(recipe)
    loss = TargetLoss(recipe.loss, np.ones(recipe.model.num_classes))
    update = Update(recipe, Steps(total, total, 0, total, total, total), loss, state)
    batch = noise(recipe)
    if compiled:
        update.forward = torch.compile(state.model)  # type: ignore[assignment]
    return lambda: update(batch)


def timm_step(recipe: Recipe, compiled: bool = False) -> Callable[[], object]:
    """Forward, backward and the same optimiser with timm's model."""
    device, half = device_here(), recipe.precision == "bfloat16"
    model: Any = timm_mixer(recipe.model).to(device)
    model.set_grad_checkpointing(recipe.activation_checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batch = noise(recipe)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        images, targets = batch.images.to(device), batch.targets.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(forward(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def trial(name: str, quick: bool) -> None:
    """Print what one contender takes, as JSON; called in a process of its own."""
    import time

    setting, contender = setting_here(quick), contenders_here(quick)[name]
    recipe = contender.recipe(setting)
    seconds: list[float] = []
    step_of = our_step if contender.whose == "mixerkit" else timm_step
    step_of(replace(recipe, model=replace(recipe.model, width=8, depth=1)))()  # imports everything
    on_gpu = device_here().type == "cuda"

    def once() -> None:
        step = step_of(recipe, contender.compiled)
        for _ in range(setting.warmup + setting.steps):
            start = time.perf_counter()
            step()
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)

    growth = peak_device_memory(once) if on_gpu else peak_memory(once)
    print(json.dumps({"growth": growth, "seconds": seconds[setting.warmup :]}))


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Memory and time of each contender in interleaved fresh processes, written to `out`."""
    setting = setting_here(quick)
    found: dict[str, list[Trial]] = {name: [] for name in contenders_here(quick)}
    for number in range(setting.rounds):
        for name, trials in found.items():
            trials.append(Trial(**in_fresh_process(TRIAL.format(name=name, quick=quick))))
            say(
                f"round {number + 1} of {setting.rounds}: {name}: "
                f"{trials[-1].growth / GIB:.2f} GiB, {median(trials[-1].seconds):.3f} s a step"
            )
    rows = [_row(name, trials, found[REFERENCE]) for name, trials in found.items()]
    write_results(
        out,
        name="training-memory",
        command="mixer bench training-memory" + (" --quick" if quick else ""),
        settings={
            **asdict(setting),
            "optimizer": "adamw",
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
