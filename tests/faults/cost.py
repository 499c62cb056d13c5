"""What the promises cost: python -m tests.faults.cost [--quick] [--out FILE]

A training step with and without the checks, in turns; a checkpoint beside a plain `torch.save`
of the same tensors, in turns; and what both together take of an epoch at the default interval.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch
from mixerkit.results import write_results
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.recipes import recipe
from mixerkit.study.training_memory import noise
from mixerkit.timer import compare, interleave
from mixerkit.training.interrupt import Interrupt
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import Steps
from mixerkit.training.state import TrainingState, fresh_state
from mixerkit.training.update import Update

CASES = {
    "demo": (recipe("fashion-demo"), 59_000),
    "S/16": (
        replace(recipe("photos-64"), model=variant("S/16", num_classes=1000), batch_size=32),
        1_281_167,
    ),
}
"""Name → recipe, and the images of an epoch: Fashion-MNIST's and ImageNet's."""
TURN = 0.5
"""Seconds of steps before the other contender's turn."""


def plain_step(settings: Recipe, state: TrainingState, batch: Batch) -> Callable[[], None]:
    """Forward, backward and the optimisers' updates, and nothing else."""
    loss = TargetLoss(settings.loss, np.ones(settings.model.num_classes))

    def step() -> None:
        loss(state.model(batch.images), batch.targets).backward()
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def checked_step(settings: Recipe, state: TrainingState, batch: Batch) -> Callable[[], None]:
    """What a run does: draws seeded, gradient norm, figures judged before weights change, polls."""
    total = 10**9
    steps = Steps(total, total, 0, total, total, total)
    interrupt = Interrupt()
    loss = TargetLoss(settings.loss, np.ones(settings.model.num_classes))
    update = Update(settings, steps, loss, state, interrupt.poll)

    def step() -> None:
        update(batch)
        interrupt.poll()

    return step


def saves(run: RunFolder, state: TrainingState, folder: Path) -> dict[str, Callable[[], None]]:
    """Our checkpoint, with checksums, syncs and pruning, and torch's file without any of them."""
    steps = count(1)

    def ours() -> None:
        state.step = next(steps)
        state.save(run, 2)

    def torchs() -> None:
        torch.save(state.tensors(), folder / "plain.pt")

    return {"torch.save": torchs, "checkpoint": ours}


def measure(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """One row."""
    settings, images = CASES[name]
    batch, state, other = noise(settings), fresh_state(settings), fresh_state(settings)
    plain = plain_step(settings, other, batch)
    # Several steps in a turn, as in training: the first after the other model's finds cold caches.
    found = interleave(
        {"plain": plain, "checked": checked_step(settings, state, batch)},
        rounds=rounds,
        least_turn=TURN,
    )
    steps = compare(found, "plain")
    with RunFolder.create(folder / "run", settings) as run:
        written = interleave(saves(run, state, folder), rounds=rounds)
    save = compare(written, "torch.save")["checkpoint"]
    checks = median(
        checked / bare - 1 for checked, bare in zip(found["checked"], found["plain"], strict=True)
    )
    epoch = steps["checked"].seconds * (images // settings.batch_size)
    return {
        "model": name,
        "step_seconds_plain": steps["plain"].seconds,
        "step_seconds_checked": steps["checked"].seconds,
        "checks_share": checks,
        "checkpoint_mib": sum(t.nbytes for t in state.tensors().values()) / 2**20,
        "save_seconds": save.seconds,
        "torch_save_seconds": median(written["torch.save"]),
        "save_over_torch_save": 1 / save.speedup,
        "epoch_seconds": epoch,
        "saves_share": save.seconds / epoch,
        "share_at_default_interval": checks + save.seconds / epoch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cost", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/reliability-cost.json"))
    given = parser.parse_args()
    rounds, rows = 3 if given.quick else 25, []
    for name in ("demo",) if given.quick else CASES:
        with tempfile.TemporaryDirectory(dir=".") as folder:  # the disk that runs are on
            rows.append(measure(name, rounds, Path(folder)))
        print(rows[-1], flush=True)
    write_results(
        given.out,
        name="reliability-cost",
        command="python -m tests.faults.cost" + (" --quick" if given.quick else ""),
        settings={"rounds": rounds, "threads": torch.get_num_threads()},
        rows=rows,
    )


if __name__ == "__main__":
    main()
