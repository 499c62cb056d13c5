"""What is fast and wrong is found out, in every precision."""

import math

import numpy as np
import pytest

from mixerkit.benchmark.answers import signal_of, signal_to_noise, wrong

GENERATOR = np.random.default_rng(0)
COMMON = 3 * GENERATOR.standard_normal(10)
WANTED = (COMMON + GENERATOR.standard_normal((8, 10))).astype(np.float32)
"""Outputs that have much in common, as those of noise have."""
SIGNAL = signal_of(WANTED)
USELESS = {
    "zeros": np.zeros_like(WANTED),
    "the mean of all images": np.broadcast_to(WANTED.mean(axis=0), WANTED.shape),
    "other images": np.roll(WANTED, 1, axis=0),
    "not numbers": np.full_like(WANTED, np.nan),
    "infinite": np.full_like(WANTED, np.inf),
    "classes in another order": WANTED[:, ::-1],
}


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", USELESS)
def test_useless_answers_are_wrong(kind: str, name: str) -> None:
    for count in (8, 1):
        assert wrong(kind, USELESS[name][:count], WANTED[:count], SIGNAL)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_the_models_own_answers_are_right(kind: str) -> None:
    assert not wrong(kind, WANTED, WANTED, SIGNAL)
    assert "in place of [8, 10]" in wrong(kind, WANTED[:4], WANTED, SIGNAL)


def test_float32_may_be_off_by_a_thousandth_of_the_largest_output() -> None:
    for share, right in ((9e-4, True), (1.1e-3, False)):
        found = WANTED.copy()
        found[2, 3] += share * np.abs(WANTED).max()
        assert (wrong("float32", found, WANTED, SIGNAL) == "") is right


def test_8_bits_may_have_a_tenth_of_the_signals_power_as_noise() -> None:
    for decibels, right in ((10.5, True), (9.5, False)):
        off = np.full_like(WANTED, math.sqrt(SIGNAL / 10 ** (decibels / 10)))
        found = WANTED + off
        assert signal_to_noise(found, WANTED, SIGNAL) == pytest.approx(decibels, abs=1e-3)
        assert (wrong("int8", found, WANTED, SIGNAL) == "") is right
    assert f"{9.5} dB" in wrong("int8", found, WANTED, SIGNAL)
