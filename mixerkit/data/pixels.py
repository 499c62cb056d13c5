"""The pixels of every item of a split, from memory or decoded by threads ahead of their use.

Letters: N images in a split, I image channels, H and W height and width.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from mixerkit.data.decode import (
    BrokenImage,
    canvas,
    canvas_size,
    fit,
    from_array,
    pixels_text,
    read,
)
from mixerkit.data.quarantine import Unreadable
from mixerkit.data.readers import PATIENCE, Poll, Result, Work, fetch, nothing
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess

Prepare = Callable[[Image.Image, Preprocess], np.ndarray]

# Indices of the images of a batch that can be used, the pixels of each (one array when the split
# is stored as one), and the images that are left out.
Read = tuple[np.ndarray, Sequence[np.ndarray] | np.ndarray, tuple[Unreadable, ...]]

TYPICAL_ASPECT = 1.5
READ_AT_ONCE = 256
"""Images that are looked at for problems alone, so that all threads have some."""


@dataclass(frozen=True)
class Reading:
    """How images are read: by `workers` threads (0: one per processor), of which at least one
    finishes an image every `patience` seconds while a batch is waited for. `skip_broken` leaves
    broken images out; otherwise the first is an error. `poll` is called while a batch is waited
    for."""

    workers: int = 0
    patience: float = PATIENCE
    skip_broken: bool = False
    poll: Poll = nothing


class Pixels:
    """uint8 [I, H', W'] of every item of a split, made by `prepare` (`fit` or `canvas`).

    Arrays that need no resizing are taken as they are. Everything else is made when it is
    first asked for, and kept as long as the whole split fits into `memory` GiB. `scaled`: JPEGs
    are decoded no larger than needed.
    """

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        prepare: Prepare,
        memory: float,
        scaled: bool = False,
    ) -> None:
        self.split, self.preprocess, self.prepare = split, preprocess, prepare
        self.least = partial(canvas_size, preprocess=preprocess) if scaled else None
        self.stored_NIHW = _stored(split, preprocess, prepare)
        self.keeps = _estimated_bytes(split, preprocess, prepare) <= memory * 2**30
        self.kept: list[np.ndarray | None] = [None] * len(split)

    def batches(self, batches: Iterable[np.ndarray], reading: Reading) -> Generator[Read]:
        """What can be used of every batch of indices, in order."""
        if self.stored_NIHW is None:
            yield from read_batches(self.split, batches, self._begin, reading)
        else:
            for indices in batches:
                yield indices, self.stored_NIHW[indices], ()

    def _begin(self, indices: np.ndarray) -> list[Work]:
        """For each image its pixels when they are in memory, else the call that makes them."""
        return [
            partial(self._make, index) if (kept := self.kept[index]) is None else kept
            for index in indices.tolist()
        ]

    def one(self, index: int, reading: Reading) -> np.ndarray:
        """The pixels of a single image, or an error."""
        strict = replace(reading, skip_broken=False)
        ((_, pixels, _),) = self.batches([np.array([index])], strict)
        return pixels[0]

    def problem(self, index: int, reading: Reading) -> str:
        """Why an image cannot be used now; empty where it can."""
        return self.problems(np.array([index]), reading).get(index, "")

    def problems(self, indices: np.ndarray, reading: Reading) -> dict[int, str]:
        """Why images cannot be used now, by their index; read in batches, by all threads."""
        return {index: str(error) for index, error in self._broken(indices, reading).items()}

    def unreadable(self, indices: np.ndarray, reading: Reading) -> list[Unreadable]:
        """Those of the images that cannot be used now, in order; none of images in memory."""
        if self.split.images is not None:
            return []
        found = sorted(self._broken(indices, reading).items())
        return [Unreadable(i, self.split.paths[i], error.reason) for i, error in found]

    def _broken(self, indices: np.ndarray, reading: Reading) -> dict[int, BrokenImage]:
        batches = np.split(indices, range(READ_AT_ONCE, len(indices), READ_AT_ONCE))
        found: dict[int, BrokenImage] = {}
        with _fetched(self.split, batches, self._begin, reading) as fetched:
            for indices, results in fetched:
                for index, result in zip(indices.tolist(), results, strict=True):
                    if isinstance(result, BrokenImage):
                        found[index] = result
                    elif isinstance(result, UserError):
                        raise result
        return found

    def _make(self, index: int) -> np.ndarray:
        """The pixels, decoded and resized now."""
        if self.split.images is None:
            pixels = read(self.split.paths[index], self.preprocess, self.prepare, self.least)
        else:
            pixels = self.prepare(from_array(self.split.images[index]), self.preprocess)
        if self.keeps:
            self.kept[index] = pixels
        return pixels


def read_batches(
    split: ImageSplit,
    batches: Iterable[np.ndarray],
    begin: Callable[[np.ndarray], list[Work]],
    reading: Reading,
) -> Generator[Read]:
    """What can be used of every batch of indices, in order; `begin` and errors as of `fetch`."""
    with _fetched(split, batches, begin, reading) as fetched:
        for indices, results in fetched:
            yield _sorted_out(split, indices, results, reading.skip_broken)


def _fetched(
    split: ImageSplit,
    batches: Iterable[np.ndarray],
    begin: Callable[[np.ndarray], list[Work]],
    reading: Reading,
) -> closing[Generator[tuple[np.ndarray, list[Result]]]]:
    """`fetch` as `reading` says, closed at the end: an error must not keep the threads."""
    return closing(
        fetch(
            batches,
            begin,
            split.place,
            workers=reading.workers,
            patience=reading.patience,
            poll=reading.poll,
        )
    )


def _sorted_out(
    split: ImageSplit, indices: np.ndarray, results: list[Result], skip_broken: bool
) -> Read:
    """The usable images and the others; raises the first error that must not be passed over."""
    usable: list[np.ndarray] = []
    positions: list[int] = []
    unreadable: list[Unreadable] = []
    for position, result in enumerate(results):
        if isinstance(result, np.ndarray):
            usable.append(result)
            positions.append(position)
        elif skip_broken and isinstance(result, BrokenImage) and split.paths:
            index = int(indices[position])
            unreadable.append(Unreadable(index, split.paths[index], result.reason))
        else:
            raise result
    return (indices[positions] if unreadable else indices), usable, tuple(unreadable)


def _stored(split: ImageSplit, preprocess: Preprocess, prepare: Prepare) -> np.ndarray | None:
    """The split's array as [N, I, H, W] (a view) when it needs no resizing and no crop."""
    if split.images is None:
        return None
    size, channels = split.images.shape[1:3], split.images.shape[3]
    if preprocess.resize == "none" and size != preprocess.image_hw:
        raise UserError(
            f"{split.name} has images of {pixels_text(size)}, the model takes "
            f"{pixels_text(preprocess.image_hw)}: set data.resize to 'shortest' or 'squash', or "
            f"give --crop to `mixer evaluate`."
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
