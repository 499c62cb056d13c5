"""The pixels of every item of a split, from memory or decoded by threads ahead of their use.

Letters: N images in a split, I image channels, H and W height and width.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from mixerkit.data.decode import canvas, canvas_size, fit, from_array, pixels_text, read
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess

Prepare = Callable[[Image.Image, Preprocess], np.ndarray]

# Pixels, or how to make them; safe to call from any thread.
Work = np.ndarray | Callable[[], np.ndarray]

IMAGES_PER_TASK = 8  # one by one, handing out costs as much as cropping a small image
BATCHES_AHEAD = 1
TYPICAL_ASPECT = 1.5


class Pixels:
    """uint8 [I, H', W'] of every item of a split, made by `prepare` (`fit` or `canvas`).

    Arrays that need no resizing are taken as they are. Everything else is made when it is
    first asked for, and kept as long as the whole split fits into `memory` GiB.
    """

    def __init__(
        self, split: ImageSplit, preprocess: Preprocess, prepare: Prepare, memory: float
    ) -> None:
        self.split, self.preprocess, self.prepare = split, preprocess, prepare
        self.stored_NIHW = _stored(split, preprocess, prepare)
        self.keeps = _estimated_bytes(split, preprocess, prepare) <= memory * 2**30
        self.kept: list[np.ndarray | None] = [None] * len(split)

    def batches(
        self, batches: Iterable[np.ndarray], workers: int
    ) -> Iterator[tuple[np.ndarray, Sequence[np.ndarray] | np.ndarray]]:
        """(indices, pixels of each) for every batch of indices, in order; the pixels are one
        array when the split is stored as one. `workers` as in `fetch`."""
        if self.stored_NIHW is None:
            yield from fetch(batches, self._begin, workers)
        else:
            for indices in batches:
                yield indices, self.stored_NIHW[indices]

    def _begin(self, indices: np.ndarray) -> list[Work]:
        """For each image its pixels when they are in memory, else the call that makes them."""
        return [
            partial(self._make, index) if (kept := self.kept[index]) is None else kept
            for index in indices.tolist()
        ]

    def one(self, index: int) -> np.ndarray:
        """The pixels of a single image."""
        ((_, pixels),) = self.batches([np.array([index])], workers=1)
        return pixels[0]

    def _make(self, index: int) -> np.ndarray:
        """The pixels, decoded and resized now."""
        if self.split.images is None:
            pixels = read(self.split.paths[index], self.preprocess, self.prepare)
        else:
            pixels = self.prepare(from_array(self.split.images[index]), self.preprocess)
        if self.keeps:
            self.kept[index] = pixels
        return pixels


def _stored(split: ImageSplit, preprocess: Preprocess, prepare: Prepare) -> np.ndarray | None:
    """The split's array as [N, I, H, W] (a view) when it needs no resizing and no crop."""
    if split.images is None:
        return None
    size, channels = split.images.shape[1:3], split.images.shape[3]
    if preprocess.resize == "none" and size != preprocess.image_hw:
        raise UserError(
            f"{split.name} has images of {pixels_text(size)}, the model takes "
            f"{pixels_text(preprocess.image_hw)}: set data.resize to 'shortest' or 'squash'."
        )
    if channels != preprocess.channels and {channels, preprocess.channels} != {1, 3}:
        raise UserError(
            f"{split.name} has images of {channels} channels, the model takes "
            f"{preprocess.channels}: set model.in_channels to {channels}."
        )
    prepared = preprocess.image_hw if prepare is fit else canvas_size(size, preprocess)
    if (size, size, channels) != (canvas_size(size, preprocess), prepared, preprocess.channels):
        return None
    return split.images.transpose(0, 3, 1, 2)


def _estimated_bytes(split: ImageSplit, preprocess: Preprocess, prepare: Prepare) -> float:
    """Bytes of all prepared images, before any is opened."""
    height, width = preprocess.image_hw
    aspect = 1.0
    if prepare is canvas:
        height, width = canvas_size(preprocess.image_hw, preprocess)
        aspect = TYPICAL_ASPECT if preprocess.resize == "shortest" else 1.0
    return len(split) * preprocess.channels * height * width * aspect


def fetch(
    batches: Iterable[np.ndarray], begin: Callable[[np.ndarray], list[Work]], workers: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """(indices, pixels of each) for every batch of indices, in order.

    `begin` tells what each image of a batch is or takes; what it takes is done in `workers`
    threads (0: one per processor), a batch ahead of what is asked for. Their errors are raised
    here, and they end with the iterator, also when it is dropped half-way.
    """
    waiting: deque[tuple[np.ndarray, list[Future[list[np.ndarray]]]]] = deque()
    pool = ThreadPoolExecutor(workers or processors())  # starts threads when work comes in
    try:
        for indices in batches:
            works = begin(indices)
            waiting.append((indices, [_hand_out(pool, task) for task in _tasks(works)]))
            if len(waiting) > BATCHES_AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _tasks(works: list[Work]) -> list[list[Work]]:
    return [works[i : i + IMAGES_PER_TASK] for i in range(0, len(works), IMAGES_PER_TASK)]


def _hand_out(pool: ThreadPoolExecutor, task: list[Work]) -> Future[list[np.ndarray]]:
    """The task's result to come; what is in memory needs no thread."""
    if any(callable(work) for work in task):
        return pool.submit(_do, task)
    done: Future[list[np.ndarray]] = Future()
    done.set_result(_do(task))
    return done


def _do(task: list[Work]) -> list[np.ndarray]:
    return [work() if callable(work) else work for work in task]


def _finished(
    indices: np.ndarray, tasks: list[Future[list[np.ndarray]]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    return indices, [pixels for task in tasks for pixels in task.result()]


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
