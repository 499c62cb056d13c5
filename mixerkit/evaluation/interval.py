"""95 % intervals of a mean: of few values by Student's t, of many by the bootstrap."""

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""97.5 % points of Student's t for 1, 2, … 20 degrees of freedom."""


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean; None of a single value."""
    count = len(values)
    if count < 2:
        return None
    freedom = count - 1
    # beyond the table, by the first terms of the expansion around the normal distribution
    beyond = 1.95996 + 2.3723 / freedom + 2.82 / freedom**2
    t = T_975[freedom - 1] if freedom <= len(T_975) else beyond
    return t * stdev(values) / count**0.5


def interval_of_shares(shares: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean of shares by Student's t, cut off at 0 and 1; None of a single
    value. No mean of shares is beyond these, so that what is cut off covers nothing."""
    half = half_width(shares)
    if half is None:
        return None
    center = fmean(shares)
    return max(0.0, center - half), min(1.0, center + half)


def bootstrap(values_N: np.ndarray, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of `values_N`: of so many samples of as many values,
    drawn with replacement, the middle 95 % of the means (Efron 1979)."""
    random, count = np.random.default_rng(seed), len(values_N)
    means = [values_N[random.integers(count, size=count)].mean() for _ in range(draws)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
