"""Single calls in turns, with a clock of its own."""

import pytest

from mixerkit.benchmark.turns import (
    affordable,
    all_calls,
    in_turns,
    percentiles,
    times_as_fast,
)


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float):
        times = list(seconds)

        def call() -> None:
            self.called.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return call


def test_every_call_is_kept_and_each_round_has_all_contenders() -> None:
    clock = Clock()
    calls = {"A": clock.call("A", 0.25), "B": clock.call("B", 1.0, 2.0)}
    found = in_turns(calls, rounds=2, turn=0.5, clock=clock)
    assert clock.called == [*"AAB", *"AAB"]
    assert found == {"A": [[0.25, 0.25]] * 2, "B": [[1.0], [2.0]]}


def test_the_first_of_short_calls_is_not_counted() -> None:
    clock = Clock()
    found = in_turns({"A": clock.call("A", 2**-5, 2**-6)}, rounds=1, turn=2**-4, clock=clock)
    assert found == {"A": [[2**-6, 2**-6]]} and len(clock.called) == 3


def test_a_slow_call_shows_in_the_percentiles() -> None:
    rounds = [[1.0] * 50, [1.0] * 49 + [9.0]]
    found = percentiles(all_calls(rounds))
    assert found[50] == found[90] == 1.0 and 1.0 < found[99] <= 9.0
    assert percentiles([float(n) for n in range(101)]) == {50: 50, 90: 90, 99: 99}


def test_few_calls_have_no_high_percentiles() -> None:
    assert percentiles([3.0]) == {50: 3.0, 90: None, 99: None}
    assert percentiles([1.0] * 9)[90] is None and percentiles([1.0] * 10)[90] == 1.0
    assert percentiles([1.0] * 99)[99] is None and percentiles([1.0] * 100)[99] == 1.0


def test_ratios_are_of_the_same_round() -> None:
    ours, theirs = [[1.0, 1.0, 7.0], [10.0]], [[2.0], [20.0, 20.0]]
    assert times_as_fast(ours, theirs).speedup == 2.0


def test_quartiles_say_how_far_rounds_agree() -> None:
    found = times_as_fast([[1.0]] * 5, [[1.0], [2.0], [3.0], [4.0], [5.0]])
    assert (found.low, found.speedup, found.high) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("estimates", "rounds"), [([10.0, 10.0], 3), ([1.0, 1.0], 10), ([1e-4] * 2, 41)]
)
def test_rounds_fit_into_the_budget(estimates: list[float], rounds: int) -> None:
    """A short call takes its whole turn."""
    assert affordable(estimates, 20.0, 3, 41) == rounds
