"""Whether torch.compile pays within one run, found by measurement before training starts."""

import copy
import shutil
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from mixerkit.errors import RunFailed

# Compiling a Mixer's training step takes from 20 s up, and gains rarely over a fifth: below
# this predicted time in steps the measurement itself costs more than it can win.
WORTH_TRYING_SECONDS = 300.0
ROUNDS = 5

Step = Callable[[nn.Module], Tensor]


def choose_compile(setting: str, model: nn.Module, step: Step, steps_left: int) -> tuple[bool, str]:
    """(compile?, why) for a run with `steps_left` updates, each costing about one `step`.

    `step(model)` runs a forward pass and returns the loss; the copy that is measured leaves
    the model, its gradients and its random numbers alone.
    """
    if setting == "off":
        return False, "compile: off, as asked"
    if setting == "on":
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            raise RunFailed("torch.compile needs a C++ compiler (g++); use --compile off.")
        return True, "compile: on, as asked"
    trial = copy.deepcopy(model)
    eager = _step_seconds(trial, step)
    if eager * steps_left < WORTH_TRYING_SECONDS:
        return False, f"compile: off ({eager * steps_left:.0f} s of steps cannot repay it)"
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return False, "compile: off (no C++ compiler found)"
    compiled = _step_seconds(torch.compile(trial), step)  # type: ignore[arg-type]
    pays = compiled < 0.97 * eager
    verdict = "on" if pays else "off"
    return pays, f"compile: {verdict} ({eager:.3f} s a step eager, {compiled:.3f} s compiled)"


def _step_seconds(model: nn.Module, step: Step) -> float:
    """Median seconds of a forward and backward pass, after two to warm up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        step(model).backward()
        seconds.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return median(seconds[2:])
