"""The smallest run that has all that a run can have; what it holds follows from the step alone."""

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixerkit.checkpoint.run import RunFolder
from mixerkit.spec.recipe import Recipe
from tests.checkpoint.conftest import TINY, tensors_of

TINY_RUN = Recipe(name="tiny", model=TINY)
Found = tuple[dict[str, Tensor], dict[str, Any]] | None


def row_of(step: int) -> dict[str, Any]:
    """The row of metrics of a step."""
    return {"step": step, "split": "train", "loss": 1 / (step + 1)}


def validation_of(step: int) -> float | None:
    """The accuracy on held-out images, measured at two steps of three; highest at 4, 29, 54 …"""
    return None if step % 3 == 0 else 1 / (1 + abs(step % 25 - 4))


def save(run: RunFolder, step: int, keep: int = 2) -> Path:
    """One step as training does it: a row, then a checkpoint, then that it was saved."""
    run.log(row_of(step))
    state = {"seconds": 0.1 * step, "validation": validation_of(step)}
    path = run.save_checkpoint(step, tensors_of(step), state, keep)
    run.log_timing({"step": step, "seconds": 0.5})
    return path


def make_run(path: Path, steps: Iterable[int], keep: int = 2) -> Path:
    """A run with a checkpoint of each of `steps`, pruned on the way."""
    with RunFolder.create(path, TINY_RUN) as run:
        for step in steps:
            save(run, step, keep)
    return path


def step_of(found: Found) -> int:
    """The step of a checkpoint, after checking that all in it is of this step, bit for bit."""
    assert found, "no checkpoint"
    tensors, state = found
    step = state["step"]
    expected = tensors_of(step)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name
    assert (state["seconds"], state["validation"]) == (0.1 * step, validation_of(step))
    return int(step)


def newest(path: Path) -> tuple[int, str]:
    """(step of the newest checkpoint that a reader gets, what was said on stderr)."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found = RunFolder.open(path).newest_checkpoint()
    return step_of(found), said.getvalue()
