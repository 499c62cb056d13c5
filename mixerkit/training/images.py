"""By what a run knows the images that it was started with again: names and labels of all, the
content of some."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial

import numpy as np

from mixerkit.data.decode import digest
from mixerkit.data.readers import Poll, Work, fetch
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.spec.recipe import Data

COMPARED = 256
"""Images of which the content is compared: cheap, and a set that was replaced shows."""
BLOCKS = 8
"""Blocks in which they are, where images can only be read by the block."""
BYTES = 4
"""Of a SHA-256, for each of them."""


def images_of(splits: Splits) -> str:
    """How many images there are, and a checksum of their names and labels in their order. Where
    their folder lies makes no difference; images for the test may come and go."""
    checksum = hashlib.sha256()
    for split in _seen(splits):
        checksum.update(np.ascontiguousarray(split.labels, dtype="<i8").tobytes())
        for name in _names(split):
            checksum.update(os.fsencode(name) + b"\0")
    held_out = len(splits.validation) if splits.validation is not None else 0
    return (
        f"{len(splits.train)} for training, {held_out} held out, names and labels "
        f"{checksum.hexdigest()[:12]}"
    )


def contents_of(splits: Splits, data: Data, poll: Poll) -> list[str]:
    """The beginning of the SHA-256 of some images, spread evenly over all; zeros for one that
    cannot be read. Errors and `poll` as of `fetch`."""
    chosen = compared(splits)

    def begin(numbers: np.ndarray) -> list[Work]:
        return [partial(_digest, *_item(splits, int(number))) for number in numbers]

    def place(number: int) -> str:
        split, index = _item(splits, number)
        return split.place(index)

    ((_, found),) = fetch(
        [chosen], begin, place, workers=data.workers, patience=data.patience, poll=poll
    )
    return [one.tobytes().hex() for one in found if isinstance(one, np.ndarray)]


def compared(splits: Splits) -> np.ndarray:
    """The numbers of the images that are compared, int64, spread evenly over all; over a few blocks
    where images can only be read by the block."""
    seen = list(_seen(splits))
    numbers = np.arange(sum(map(len, seen)))
    blocks = [found for split in seen if (found := split.blocks()) is not None]
    if len(blocks) == len(seen):
        own = [np.unique(found, return_inverse=True)[1] for found in blocks]
        firsts = np.cumsum([0, *(found.max(initial=-1) + 1 for found in own)])
        block = np.concatenate([found + first for found, first in zip(own, firsts, strict=False)])
        numbers = numbers[np.isin(block, _spread(np.arange(firsts[-1]), BLOCKS))]
    return _spread(numbers, COMPARED)


def _spread(numbers: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of them, evenly."""
    places = np.linspace(0, len(numbers) - 1, count).astype(np.int64)
    return numbers[np.unique(places)]


def note_on_changes(before: list[str], now: list[str]) -> str:
    """What to say of images whose content is not what it was; empty where all is."""
    count = sum(one != other for one, other in zip(before, now, strict=False))
    if not count:
        return ""
    return (
        f"note: {count} of the {len(now)} images that are compared have another content than when "
        f"the run began. It goes on with them as they are; it will not end with the same bits as a "
        f"run that never stopped."
    )


def _seen(splits: Splits) -> Iterator[ImageSplit]:
    """What the weights, and the choice of the best ones, depend on."""
    yield splits.train
    if splits.validation is not None:
        yield splits.validation


def _item(splits: Splits, number: int) -> tuple[ImageSplit, int]:
    """The split and the index of an image, by its number among all that are seen."""
    train, validation = splits.train, splits.validation
    if number < len(train) or validation is None:
        return train, number
    return validation, number - len(train)


def _names(split: ImageSplit) -> Iterator[str]:
    """Of the files, below the folder that holds all of them."""
    if split.paths:
        start = len(os.path.commonpath([str(split.paths[0]), str(split.paths[-1])]))
        yield from (str(path)[start:] for path in split.paths)


def _digest(split: ImageSplit, index: int) -> np.ndarray:
    """uint8 [BYTES] of an image's file, or of its pixels where there are no files."""
    if split.images is None:
        found = digest(split.paths[index])
    else:
        found = hashlib.sha256(np.ascontiguousarray(split.images[index]).tobytes()).digest()
    return np.frombuffer(found[:BYTES], np.uint8)
