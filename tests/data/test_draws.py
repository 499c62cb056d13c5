"""Random numbers: against whole-number arithmetic in plain Python, and against statistics."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from mixerkit.data.draws import shuffled, splitmix64, symmetric_beta, uniforms

WORD = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15


def plain_splitmix64(state: int) -> int:
    z = (state + STEP) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def plain_uniforms(seed: int, epoch: int, index: int, count: int, stream: int) -> list[float]:
    key = 0
    for word in (seed, epoch, stream):
        key = plain_splitmix64((key ^ word) & WORD)
    start = plain_splitmix64(key ^ index)
    return [(plain_splitmix64((start + k * STEP) & WORD) >> 11) / 2**53 for k in range(count)]


def test_splitmix64_gives_the_published_sequence():
    states = [(1234567 + k * STEP) & WORD for k in range(3)]
    found = splitmix64(np.array(states, np.uint64)).tolist()
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(-5, 2**64), st.integers(0, 10**6), st.integers(0, 2**40), st.integers(0, 9))
def test_uniforms_equal_plain_python(seed, epoch, index, stream):
    found = uniforms(seed, epoch, np.array([7, index]), 4, stream)
    assert found[1].tolist() == plain_uniforms(seed, epoch, index, 4, stream)
    assert found[0].tolist() == plain_uniforms(seed, epoch, 7, 4, stream)


def test_more_draws_begin_with_the_same_ones():
    index = np.arange(5)
    np.testing.assert_array_equal(uniforms(1, 2, index, 9)[:, :3], uniforms(1, 2, index, 3))


@pytest.mark.parametrize("axis", ["index", "count", "epoch", "seed", "stream"])
def test_uniforms_are_uniform_and_neighbours_independent(axis):
    many = np.arange(20_000)
    draws = {
        "index": lambda: uniforms(0, 0, many, 1)[:, 0],
        "count": lambda: uniforms(0, 0, many[:1], len(many))[0],
        "epoch": lambda: np.array([uniforms(0, k, many[:1], 1)[0, 0] for k in range(2000)]),
        "seed": lambda: np.array([uniforms(k, 0, many[:1], 1)[0, 0] for k in range(2000)]),
        "stream": lambda: np.array([uniforms(0, 0, many[:1], 1, k)[0, 0] for k in range(2000)]),
    }[axis]()
    error = 1 / np.sqrt(len(draws))
    assert abs(draws.mean() - 0.5) < 4 * error * np.sqrt(1 / 12)
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 * error
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_an_epochs_order_is_a_permutation_of_its_own():
    first, second = shuffled(3, 0, 1000), shuffled(3, 1, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1
    np.testing.assert_array_equal(first, shuffled(3, 0, 1000))


@pytest.mark.parametrize("shape", [0.1, 0.2, 0.5, 1.0, 2.5])
def test_symmetric_beta_has_the_distribution(shape):
    draws = symmetric_beta(shape, uniforms(5, 0, np.arange(5000), 3))
    assert stats.kstest(draws, stats.beta(shape, shape).cdf).pvalue > 1e-3


def test_symmetric_beta_at_the_ends_of_the_draws():
    ends = np.array([[a, b, c] for a in (0, 1 - 2**-53) for b in (0, 0.25) for c in (0, 0.9)])
    found = symmetric_beta(0.1, ends)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
