"""ReaL accuracy: how often the likeliest class is one of an image's right ones.

Beyer et al. 2020, "Are we done with ImageNet?" (arXiv 2006.07159). Letters: N images, K classes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import check_outputs
from mixerkit.evaluation.interval import interval_of_share


@dataclass(frozen=True)
class RealAccuracy:
    """`top1`: share in [0, 1] of the `samples` images with a label, its 95 % interval, and by what
    that was found; `left_out` have none."""

    samples: int
    left_out: int
    top1: float
    top1_interval: tuple[float, float]
    top1_interval_by: str


def measure_real(probabilities_NK: Tensor, labels: Sequence[Collection[int]]) -> RealAccuracy:
    """The likeliest class counts when it is among the image's `labels`; images without any are
    left out.

    Of classes with equal probability the one with the lower index is taken, as in `accuracy`.
    `UserError` for numbers that are not finite, labels that are no class, or no image with a label.
    """
    p_NK = _checked(probabilities_NK, labels)
    predicted_N = p_NK.argmax(axis=1)  # NumPy promises the first of equal values
    guesses = zip(predicted_N.tolist(), labels, strict=True)
    right = np.array([guess in own for guess, own in guesses if own], dtype=float)
    left_out = len(labels) - len(right)
    return RealAccuracy(len(right), left_out, float(right.mean()), *interval_of_share(right))


def _checked(probabilities_NK: Tensor, labels: Sequence[Collection[int]]) -> np.ndarray:
    """The probabilities in NumPy, or an error that says what is wrong."""
    p_NK: np.ndarray = probabilities_NK.double().cpu().numpy()
    if p_NK.ndim != 2 or len(p_NK) != len(labels):
        raise UserError(
            f"Expected probabilities [images, classes] and one set of labels for each image, found "
            f"{list(p_NK.shape)} and {len(labels)} sets."
        )
    check_outputs(p_NK)
    classes = p_NK.shape[1]
    wrong = sorted({label for own in labels for label in own if not 0 <= label < classes})
    if wrong:
        raise UserError(f"Expected labels from 0 to {classes - 1}, found {wrong[0]}.")
    if not any(labels):
        raise UserError("ReaL accuracy needs at least one image that has a label, found none.")
    return p_NK
