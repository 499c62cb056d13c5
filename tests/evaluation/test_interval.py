"""Intervals against scipy's."""

import random
from itertools import pairwise

import numpy as np
import pytest

from mixerkit.evaluation.interval import (
    bootstrap,
    half_width,
    half_width_of_changes,
    interval_of_share,
    interval_of_shares,
    wilson,
)


def test_half_of_an_interval_is_students() -> None:
    from scipy import stats

    for count in (2, 3, 5, 10, 11, 21, 22, 50):
        values = [random.gauss(0, 1) for _ in range(count)]
        low, high = stats.t.interval(
            0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values)
        )
        assert half_width(values) == pytest.approx((high - low) / 2, rel=2e-3)
    assert half_width([1.0]) is None


def test_an_interval_of_shares_is_students_within_0_and_1() -> None:
    from scipy import stats

    for shares in (
        [0.9, 1.0, 0.95],
        [0.4, 0.5, 0.45],
        [0.0, 0.02, 0.1],
        [0.0, 1.0],
    ):
        center = sum(shares) / len(shares)
        half = stats.t.ppf(0.975, len(shares) - 1) * stats.sem(shares)
        expected = (max(0, center - half), min(1, center + half))
        assert interval_of_shares(shares) == pytest.approx(expected, rel=2e-3)
    assert interval_of_shares([0.5]) is interval_of_shares([0.9, 0.9, 0.9]) is None


def test_wilsons_is_that_of_scipy() -> None:
    from scipy import stats

    for successes, count in ((0, 1), (1, 1), (0, 40), (40, 40), (39, 40), (3, 7), (1, 1000)):
        expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
        found = wilson(successes, count)
        assert found == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert 0 <= found[0] < found[1] <= 1 and found[1] - found[0] > 0.004
    assert wilson(0, 40)[0] == 0 and wilson(40, 40)[1] == 1


def test_a_share_of_nearly_all_or_nothing_has_wilsons_interval() -> None:
    for value in (0.0, 1.0):
        assert interval_of_share(np.full(40, value)) == (wilson(int(40 * value), 40), "wilson")
    for wrong, by in ((1, "wilson"), (9, "wilson"), (10, "bootstrap")):
        some = (np.arange(40) >= wrong).astype(float)
        wanted = bootstrap(some) if by == "bootstrap" else wilson(40 - wrong, 40)
        assert interval_of_share(some) == (wanted, by)


def test_changes_that_are_all_alike_have_an_interval_with_a_width() -> None:
    changes = [0.0, 1.0, -1.0, 0.0, 1.0]
    assert half_width_of_changes(changes) == half_width(changes)
    none, every = half_width_of_changes([0.0] * 40), half_width_of_changes([1.0] * 40)
    assert none == wilson(0, 40)[1] and every == 2 * none
    assert half_width_of_changes([0.0]) is None


def test_a_wrong_answer_more_raises_the_lower_end_by_two_answers_at_most() -> None:
    """Across the change from one kind of interval to the other, too, where samples are coarse."""
    for count in (40, 1000):
        lows = [
            interval_of_share(np.arange(count) < right)[0][0]
            for right in range(count, count - 15, -1)
        ]
        assert all(low <= before + 2 / count for before, low in pairwise(lows)), lows
        assert lows[0] > lows[-1]


def test_one_change_is_no_surer_than_none() -> None:
    widths = [
        half_width_of_changes([1.0] * changed + [0.0] * (1000 - changed)) for changed in range(20)
    ]
    assert all(wide is not None for wide in widths)
    assert all(later >= before for before, later in pairwise(widths))  # type: ignore[operator]
