"""Whether a contender's outputs are the model's own: what is fast and wrong is no contender.

Letters: B batch, K classes.
"""

import math

import numpy as np

from mixerkit.benchmark.peer_settings import Kind

LARGEST = 1e-3
"""In float32: the largest difference, as a share of the largest output."""
DECIBELS = 10.0
"""In bfloat16 and 8 bits: the least signal to noise."""


def signal_of(wanted_BK: np.ndarray) -> float:
    """By how much outputs differ from image to image, as a mean square: what an answer that looks
    at no image cannot give."""
    wide_BK = wanted_BK.astype(np.float64)
    return float(np.square(wide_BK - wide_BK.mean(axis=0)).mean())


def signal_to_noise(found_BK: np.ndarray, wanted_BK: np.ndarray, signal: float) -> float:
    """In decibels; -inf where something is not finite, inf where nothing differs."""
    noise = float(np.square(found_BK.astype(np.float64) - wanted_BK).mean())
    if not math.isfinite(noise) or signal <= 0:
        return -math.inf
    return 10 * math.log10(signal / noise) if noise else math.inf


def wrong(kind: Kind, found_BK: np.ndarray, wanted_BK: np.ndarray, signal: float) -> str:
    """What is wrong with outputs that are computed in that precision, empty where they are right.
    `signal`: as `signal_of` several images."""
    if found_BK.shape != wanted_BK.shape:
        return f"gives outputs {list(found_BK.shape)} in place of {list(wanted_BK.shape)}"
    if kind == "float32":
        share = float(np.abs(found_BK - wanted_BK).max() / np.abs(wanted_BK).max())
        if share <= LARGEST:  # never true of what is not a number
            return ""
        return f"gives outputs that are off by {share:.2g} of the largest (at most {LARGEST:g})"
    decibels = signal_to_noise(found_BK, wanted_BK, signal)
    if decibels >= DECIBELS:
        return ""
    return f"gives outputs of {decibels:.1f} dB signal to noise (at least {DECIBELS:g})"
