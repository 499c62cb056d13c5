"""A model's way over a split: in batches that fit, watched, and timed.

Letters: N images, K classes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mixerkit.device import GIB, is_out_of_memory, memory_here
from mixerkit.evaluation.accuracy import probabilities
from mixerkit.spec.mixer import MixerConfig

T = TypeVar("T")
Batches = Iterable[tuple[Tensor, Tensor]]
Part = tuple[np.ndarray, Tensor, Tensor]
"""Indices of images in their split, int64 [N], their probabilities [N, K] and labels [N]."""
MOST = 256
"""Images computed at once, at most, where nobody says how many."""
CACHE = 48 * 2**20
"""Bytes of activations beyond which a processor becomes slower, not faster, with more images."""


@dataclass(frozen=True)
class Passes:
    """Probabilities [N, K] and labels [N], and how fast they came. `waiting`: the share of the time
    in which no image was ready to be computed."""

    probabilities: Tensor
    labels: Tensor
    batch_size: int
    seconds: float
    waiting: float

    @property
    def images_per_second(self) -> float:
        """Reading, decoding and computing."""
        return len(self.labels) / self.seconds if self.seconds else 0.0


def batch_for(config: MixerConfig) -> int:
    """How many images to compute at once: on a GPU as many as a quarter of its memory holds, on a
    processor as its cache does; from 1 to `MOST`, a power of two."""
    tokens, widest = config.num_patches, max(config.width, config.channel_width)
    image = 4 * tokens * (widest + 3 * config.width)  # one hidden layer, its input, the skip
    free = memory_here()
    room = CACHE if free is None else free * GIB / 4
    count = int(min(MOST, max(1, room // image)))
    return 1 << (count.bit_length() - 1)


def passes(
    model: nn.Module,
    loader_of: Callable[[int], Any],
    batch_size: int,
    counted: Callable[[int], None],
    classes: int = 0,
) -> Passes:
    """The model's `probabilities` over `loader_of(batch_size)`, telling `counted` how many images
    are done."""
    watched = _Watched(loader_of(batch_size), counted)
    start = time.perf_counter()
    p_NK, labels_N = probabilities(model, watched, classes)
    seconds = time.perf_counter() - start
    return Passes(p_NK, labels_N, batch_size, seconds, watched.waited / max(seconds, 1e-9))


def fitting(attempt: Callable[[int], T], batch_size: int, may_shrink: bool) -> T:
    """What `attempt(batch_size)` gives. Where memory is short and the size is ours to choose, the
    half is tried, and so on."""
    while True:
        try:
            return attempt(batch_size)
        except RuntimeError as error:
            if not (may_shrink and batch_size > 1 and is_out_of_memory(error)):
                raise
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_order(parts: Sequence[Part]) -> Part:
    """What several processes found of their parts of a split, in the order of the split."""
    usable, found, labels = zip(*parts, strict=True)
    indices_N = np.concatenate(usable)
    order = np.argsort(indices_N)
    rows = torch.from_numpy(order)
    return indices_N[order], torch.cat(found)[rows], torch.cat(labels)[rows]


class _Watched:
    """Batches, counted; `waited`: seconds until they were there."""

    def __init__(self, batches: Batches, counted: Callable[[int], None]) -> None:
        self.batches, self.counted = batches, counted
        self.waited, self.done = 0.0, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        given = iter(self.batches)
        while True:
            start = time.perf_counter()
            batch = next(given, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch
            self.done += len(batch[1])
            self.counted(self.done)
