"""95 % intervals of a mean: of few values by Student's t, of many by the bootstrap, and of a share
that is nearly all or nothing by Wilson's score."""

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""97.5 % points of Student's t for 1, 2, … 20 degrees of freedom."""
Z_975 = 1.959964
"""The same of the normal distribution."""
FEW = 10


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
    value, and of equal ones: a few that agree by chance say nothing of how others spread. No mean
    of shares is beyond 0 and 1, so that what is cut off covers nothing."""
    half = half_width(shares)
    if half is None or len(set(shares)) == 1:
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


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share (1927), which has a width where all or none of `count`
    trials succeed, too."""
    share, weight = successes / count, Z_975**2 / count
    center = (share + weight / 2) / (1 + weight)
    half = (weight * share * (1 - share) + weight**2 / 4) ** 0.5 / (1 + weight)
    low = center - half if successes else 0.0
    return low, center + half if successes < count else 1.0


def interval_of_share(right_N: np.ndarray) -> tuple[tuple[float, float], str]:
    """The 95 % interval of the share of ones among zeros and ones, and by what it was found: the
    "bootstrap", or "wilson" where there are fewer than `FEW` of either: samples of so few are too
    much alike, and of none they are the same."""
    successes, count = int(right_N.sum()), len(right_N)
    if min(successes, count - successes) >= FEW:
        return bootstrap(right_N), "bootstrap"
    return wilson(successes, count), "wilson"


def half_width_of_changes(changes: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of paired differences, each −1, 0 or 1, by Student's t;
    None of a single one.

    It is at least by how much the mean may differ where as many images as Wilson's interval of none
    allows are others: unchanged images may be changed, and where all changed, changed back.
    """
    half = half_width(changes)
    if half is None:
        return None
    same = changes[0] if len(set(changes)) == 1 else 0
    return max(half, (1 + abs(same)) * wilson(0, len(changes))[1])
