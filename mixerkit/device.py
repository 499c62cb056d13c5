"""The device that computes: a GPU where there is one, and what is said when its memory is full."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mixerkit.errors import RunFailed

GIB = 2**30
NO_MEMORY_ON_PROCESSOR = "DefaultCPUAllocator: can't allocate memory"
"""How PyTorch says it there, with an error of no kind of its own."""


def device_here() -> torch.device:
    """Where this process computes: of several on a machine, each on a device of its own."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def memory_here() -> float | None:
    """GiB of the GPU's memory that this process has or can get; None on a processor."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    return (free + torch.cuda.memory_reserved()) / GIB


@contextmanager
def memory_told(advice: Callable[[], str]) -> Iterator[None]:
    """Around what may need more memory than there is: a `RunFailed` says so, and gives `advice`."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        memory = memory_here()
        where = (
            "The machine's memory is full."
            if memory is None
            else f"{torch.cuda.get_device_name()} has {memory:.1f} GiB for this process, which is "
            f"not enough."
        )
        raise RunFailed(f"{where} {advice()}") from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what an error of PyTorch says."""
    return isinstance(error, torch.OutOfMemoryError) or NO_MEMORY_ON_PROCESSOR in str(error)
