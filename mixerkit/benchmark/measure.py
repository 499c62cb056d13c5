"""What else is measured: the machine's own matrix-product rate at a model's shapes, which is what
any implementation could at best reach, and memory at its worst moment.
"""

import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mixerkit.spec.mixer import MixerConfig
from mixerkit.timer import Call


def matrix_products(
    config: MixerConfig, batch: int, dtype: torch.dtype = torch.float32
) -> tuple[Call, int]:
    """The four matrix products of one block and nothing else, and their floating-point
    operations. Plain matrices, nothing allocated: the ceiling for a model of this shape."""
    shapes = products_of(config, batch)
    operands = [
        (
            torch.randn(rows, inner, dtype=dtype),
            torch.randn(columns, inner, dtype=dtype).t(),
            torch.empty(rows, columns, dtype=dtype),
        )
        for rows, inner, columns in shapes
    ]

    def multiply() -> None:
        for left, right, product in operands:
            torch.mm(left, right, out=product)

    return multiply, _operations(shapes)


def int8_products(config: MixerConfig, batch: int) -> tuple[Call, int]:
    """The same in 8 bits, with sums in 32 bits."""
    shapes = products_of(config, batch)
    operands = [
        (
            torch.randint(-128, 128, (rows, inner), dtype=torch.int8),
            torch.randint(-128, 128, (columns, inner), dtype=torch.int8).t(),
            torch.empty(rows, columns, dtype=torch.int32),
        )
        for rows, inner, columns in shapes
    ]

    def multiply() -> None:
        for left, right, product in operands:
            torch._int_mm(left, right, out=product)

    return multiply, _operations(shapes)


def products_of(config: MixerConfig, batch: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of a block's products."""
    tiles = config.num_patches // config.tile_patches
    tokens, channels = batch * config.num_patches, batch * tiles * config.width
    return [
        (channels, config.tile_patches, config.token_width),
        (channels, config.token_width, config.tile_patches),
        (tokens, config.width, config.channel_width),
        (tokens, config.channel_width, config.width),
    ]


def _operations(shapes: list[tuple[int, int, int]]) -> int:
    return sum(2 * rows * inner * columns for rows, inner, columns in shapes)


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
