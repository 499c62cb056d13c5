"""Intervals against scipy's."""

import random

import pytest

from mixerkit.evaluation.interval import half_width, interval_of_shares


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
        [1.0, 1.0, 1.0],
    ):
        center, half = sum(shares) / len(shares), 0.0
        if len(set(shares)) > 1:
            half = stats.t.ppf(0.975, len(shares) - 1) * stats.sem(shares)
        expected = (max(0, center - half), min(1, center + half))
        assert interval_of_shares(shares) == pytest.approx(expected, rel=2e-3)
    assert interval_of_shares([0.5]) is None
