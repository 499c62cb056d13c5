"""Fair timing on a machine that is never quite quiet.

What is compared runs in turns, A, B, C, A, B, C, …, so that a slow moment meets all alike, and a
speed-up is the median of the ratios within each round. One of the turns can be the machine's own
matrix-product rate at the model's shapes: what any implementation could at best reach.
"""

import ctypes
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from mixerkit.spec.mixer import MixerConfig

Call = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """One contender beside a reference. `speedup` above 1 is faster than the reference; `low`
    and `high` are the quartiles of the rounds' ratios."""

    seconds: float
    speedup: float
    low: float
    high: float


def interleave(
    functions: Mapping[str, Call],
    *,
    rounds: int,
    warmup: int = 2,
    least_turn: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call in every round. A turn repeats a fast function until about `least_turn`
    seconds have passed; `warmup` calls of each come first and are thrown away."""
    repeats = {name: _repeats(call, warmup, least_turn, clock) for name, call in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, call in functions.items():
            start = clock()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((clock() - start) / repeats[name])
    return seconds


def _repeats(call: Call, warmup: int, least_turn: float, clock: Callable[[], float]) -> int:
    fastest = math.inf
    for _ in range(warmup):
        start = clock()
        call()
        fastest = min(fastest, clock() - start)
    return max(1, math.ceil(least_turn / max(fastest, 1e-7)))


def compare(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Comparison]:
    """Every contender of `interleave` beside the one named `reference`."""
    return {name: _compare(own, seconds[reference]) for name, own in seconds.items()}


def _compare(own: list[float], reference: list[float]) -> Comparison:
    ratios = [theirs / ours for ours, theirs in zip(own, reference, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Comparison(median(own), median(ratios), low, high)


def matrix_products(config: MixerConfig, batch: int) -> tuple[Call, int]:
    """The four matrix products of one block and nothing else, and their floating-point
    operations. Plain matrices, nothing allocated: the ceiling for a model of this shape."""
    tiles = config.num_patches // config.tile_patches
    tokens, channels = batch * config.num_patches, batch * tiles * config.width
    shapes = [
        (channels, config.tile_patches, config.token_width),
        (channels, config.token_width, config.tile_patches),
        (tokens, config.width, config.channel_width),
        (tokens, config.channel_width, config.width),
    ]
    operands = [
        (torch.randn(rows, inner), torch.randn(columns, inner).t(), torch.empty(rows, columns))
        for rows, inner, columns in shapes
    ]

    def multiply() -> None:
        for left, right, product in operands:
            torch.mm(left, right, out=product)

    return multiply, sum(2 * rows * inner * columns for rows, inner, columns in shapes)


def peak_memory(call: Call) -> int | None:
    """Bytes by which the process grows at the worst moment of one call; None outside Linux.

    Freed memory is handed back to the system first, and the kernel's high-water mark reset, so
    that what earlier calls left behind is not counted and not reused.
    """
    if sys.platform != "linux":
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to VmRSS
    call()
    return max(0, _status_bytes("VmHWM") - before)


def peak_device_memory(call: Call) -> int:
    """Bytes by which PyTorch's tensors on the GPU grow at the worst moment of one call."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def in_fresh_process(code: str) -> Any:
    """What a program prints as JSON on its last line, run by this Python in a new process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no message"]
        raise RuntimeError(f"A trial failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
