"""Real images for 8 bits: some that ranges are found on, and others to judge by.

Letters: N images, I image channels, H W image height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mixerkit.data.decode import BrokenImage
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError, warn
from mixerkit.spec.preprocess import Preprocess

FEWEST, FEWEST_JUDGED = 32, 100
"""Images that ranges are found on, and others to judge by: one of a hundred is what may differ."""
NEEDED = (
    f"8 bits need at least {FEWEST} images to find ranges on and {FEWEST_JUDGED} others to judge by"
)
Watch = Callable[[int, int], None]
BROKEN = 0.01
"""Share of the images that may be left out."""


@dataclass(frozen=True)
class Samples:
    """8-bit images [N, I, H, W]: some to find ranges on, others to judge by."""

    learn: np.ndarray
    judge: np.ndarray


def parted(pixels_NIHW: np.ndarray, held_out: np.ndarray | None = None) -> Samples:
    """What there is in two parts. `held_out`: images that had no part in the training; where there
    are too few of them, some of the others judge, too."""
    held = pixels_NIHW[:0] if held_out is None else held_out
    if not suffice(len(pixels_NIHW), len(held)):
        of_them = f", {len(held)} of them for validation, which only judge" if len(held) else ""
        raise UserError(
            f"{NEEDED}, found {len(pixels_NIHW) + len(held)} in all{of_them}: give more images."
        )
    missing = _missing(len(pixels_NIHW), len(held))
    judges = np.linspace(0, len(pixels_NIHW) - 1, missing).round().astype(int)
    return Samples(
        np.delete(pixels_NIHW, judges, axis=0), np.concatenate([held, pixels_NIHW[judges]])
    )


def suffice(size: int, held: int) -> bool:
    """Whether so many images, and so many more for validation, can be parted."""
    return size - _missing(size, held) >= FEWEST


def _missing(size: int, held: int) -> int:
    """How many of the images have to judge, as there are too few for validation: half of all."""
    return max(FEWEST_JUDGED, size // 2) - held if held < FEWEST_JUDGED else 0


def samples_of(
    splits: Splits, preprocess: Preprocess, count: int, watch: Watch = lambda done, total: None
) -> Samples:
    """At most so many images to find ranges on, and as many of the validation split; the rest as of
    `usable`."""
    every, held = divided(splits)
    about = (preprocess, count, watch)
    return parted(some_of(every, *about), some_of(held, *about) if held else None)


def divided(splits: Splits) -> tuple[ImageSplit, ImageSplit | None]:
    """The training images and the validation images, if any; of a source that is for testing only,
    its images and none."""
    if len(splits.train):
        return splits.train, splits.validation
    only = splits.validation or splits.test
    assert only, "a source without images"
    return only, None


def some_of(
    split: ImageSplit,
    preprocess: Preprocess,
    count: int,
    watch: Watch = lambda done, total: None,
) -> np.ndarray:
    """At most so many images, spread over the whole split, as the decoder prepares them; the rest
    as of `usable`."""
    loader = EvaluationLoader(split, preprocess, batch_size=1, memory=0.0)
    return usable(loader.picture, spread(len(split), count), watch)


def usable(
    load: Callable[[int], np.ndarray],
    numbers: Sequence[int],
    watch: Watch = lambda done, total: None,
) -> np.ndarray:
    """The images with these `numbers`, uint8 [N, I, H, W], without those that cannot be used, which
    are named, as in training. `watch` is told how many of how many were read. `BrokenImage`: all
    are broken, or more than one and more than the share `BROKEN`."""
    images, broken = list[np.ndarray](), list[BrokenImage]()
    for done, number in enumerate(numbers):
        watch(done, len(numbers))
        try:
            images.append(load(number))
        except BrokenImage as error:
            broken.append(error)
    watch(len(numbers), len(numbers))
    if broken and (not images or len(broken) > max(1, BROKEN * len(numbers))):
        raise broken[0]
    for one in broken:
        warn(f"{one} It is left out.")
    return np.stack(images)


def spread(size: int, count: int) -> list[int]:
    """At most `count` numbers below `size`, evenly."""
    count = min(count, size)
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]
