"""Intervals against scipy's."""

import random

import pytest

from mixerkit.evaluation.interval import half_width


def test_half_of_an_interval_is_students() -> None:
    from scipy import stats

    for count in (2, 3, 5, 10, 11, 21, 22, 50):
        values = [random.gauss(0, 1) for _ in range(count)]
        low, high = stats.t.interval(
            0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values)
        )
        assert half_width(values) == pytest.approx((high - low) / 2, rel=2e-3)
    assert half_width([1.0]) is None
