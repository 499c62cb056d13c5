"""Real images for 8 bits: some that ranges are found on, and others to judge by.

Letters: N images, I image channels, H W image height and width.
"""

from dataclasses import dataclass

import numpy as np

from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess

FEWEST, FEWEST_JUDGED = 32, 100
"""Images that ranges are found on, and others to judge by: one of a hundred is what may differ."""


@dataclass(frozen=True)
class Samples:
    """8-bit images [N, I, H, W]: some to find ranges on, others to judge by."""

    learn: np.ndarray
    judge: np.ndarray


def parted(pixels_NIHW: np.ndarray, held_out: np.ndarray | None = None) -> Samples:
    """What there is in two parts. `held_out`: images that had no part in the training; where there
    are too few of them, some of the others judge, too."""
    held = pixels_NIHW[:0] if held_out is None else held_out
    missing = max(0, FEWEST_JUDGED - len(held))
    if missing:
        missing = max(missing, len(pixels_NIHW) // 2 - len(held))
    if len(pixels_NIHW) - missing < FEWEST:
        raise UserError(
            f"8 bits need at least {FEWEST} images to find ranges on and {FEWEST_JUDGED} others to "
            f"judge by, found {len(pixels_NIHW) + len(held)} in all: give more with --images."
        )
    judges = np.linspace(0, len(pixels_NIHW) - 1, missing).round().astype(int)
    return Samples(
        np.delete(pixels_NIHW, judges, axis=0), np.concatenate([held, pixels_NIHW[judges]])
    )


def samples_of(splits: Splits, preprocess: Preprocess, count: int) -> Samples:
    """So many training images, and as many of the validation split."""
    held = some_of(splits.validation, preprocess, count) if splits.validation else None
    return parted(some_of(splits.train, preprocess, count), held)


def some_of(split: ImageSplit, preprocess: Preprocess, count: int) -> np.ndarray:
    """At most so many images, spread over the whole split, as the decoder prepares them."""
    loader = EvaluationLoader(split, preprocess, batch_size=1, memory=0.0)
    return np.stack([loader.picture(index) for index in spread(len(split), count)])


def spread(size: int, count: int) -> list[int]:
    """At most `count` numbers below `size`, evenly."""
    count = min(count, size)
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]
