"""Whether torch.compile pays within one run, found by measurement before training starts."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixerkit.compiler import cxx_compiler
from mixerkit.errors import UserError

# Compiling a Mixer's training step takes from 20 s up, and gains rarely over a fifth: below
# this predicted time in steps the measurement itself costs more than it can win.
WORTH_TRYING_SECONDS = 300.0
WORTH_KEEPING = 0.9  # of the eager time
ROUNDS = 5

Step = Callable[[nn.Module], Tensor]


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a processor."""
    return bool(cxx_compiler())


def choose_compile(setting: str, model: nn.Module, step: Step, steps_left: int) -> tuple[bool, str]:
    """(compile?, why) for a run with `steps_left` updates, each costing about one `step`.

    `step(model)` runs a forward pass and returns the loss. A copy of the model is measured, so
    weights and gradients stay as they are; random numbers are drawn.
    """
    if setting == "off":
        return False, "compile: off, as asked"
    if setting == "on":
        if not has_compiler():
            raise UserError("compile=on needs a C++ compiler (g++), found none: use compile=off.")
        return True, "compile: on, as asked"
    trial = copy.deepcopy(model).train()
    eager = _step_seconds(trial, step)
    if eager * steps_left < WORTH_TRYING_SECONDS:
        return False, f"compile: off ({eager * steps_left:.0f} s of steps cannot repay it)"
    if not has_compiler():
        return False, "compile: off (no C++ compiler found)"
    try:
        compiled = _step_seconds(torch.compile(trial), step)  # type: ignore[arg-type]
    except Exception as error:  # whatever goes wrong inside a compiler, eager still works
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return False, f"compile: off (it failed here: {reason[0]:.100})"
    verdict = "on" if compiled < WORTH_KEEPING * eager else "off"
    figures = f"{eager:.3f} s a step eager, {compiled:.3f} s compiled"
    return verdict == "on", f"compile: {verdict} ({figures})"


def _step_seconds(model: nn.Module, step: Step) -> float:
    """Seconds of a forward and backward pass at its fastest, after two to warm up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start = time.perf_counter()
        loss = step(model)
        loss.backward()
        loss.item()
        if loss.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return min(seconds[2:])
