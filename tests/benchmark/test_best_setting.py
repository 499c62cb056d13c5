"""How the best setting is chosen, with a clock of its own."""

import numpy as np

from mixerkit.benchmark.best_setting import best_setting
from tests.benchmark.test_turns import Clock


def choose(*seconds: tuple[float, ...]):
    """The best of settings whose calls take such times, and who was called how often."""
    clock = Clock()
    calls = {str(i): clock.call(str(i), *own) for i, own in enumerate(seconds)}

    def opened(name: str):
        def run(images: np.ndarray) -> np.ndarray:
            calls[name]()
            return images

        return run

    best = best_setting(list(calls), opened, np.empty(1), clock)
    return best.setting, best.seconds, "".join(clock.called)


def test_one_call_prepares_and_five_rounds_in_turns_decide() -> None:
    found = choose((9.0, 0.25), (9.0, 0.25, 0.125, 0.125))
    assert found == ("1", 0.125, "00" + "11" + "01" * 4)


def test_a_slow_moment_that_meets_all_changes_nothing() -> None:
    """Two of five rounds take three times as long."""
    quiet, busy = 0.25, 0.75
    own = (9.0, quiet, busy, quiet, busy, quiet)
    assert choose(own, tuple(0.9 * one for one in own))[0] == "1"
    assert choose(tuple(0.9 * one for one in own), own)[0] == "0"


def test_long_calls_take_turns_too_and_fewer_where_they_take_very_long() -> None:
    assert choose((4.0,), (3.0,)) == ("1", 3.0, "00" + "11" + "01" * 4)
    assert choose((6.0,), (5.0,)) == ("1", 5.0, "00" + "11" + "01" * 2)
    assert choose((16.0,), (15.0,)) == ("1", 15.0, "00" + "11" + "01")
    assert choose((0.5,)) == ("0", 0.5, "00")


def test_short_calls_fill_turns_and_hopeless_ones_two() -> None:
    """Of 0.1 s; the first call prepares."""
    assert choose((2**-8,), (2**-9,))[2] == "0" * (1 + 26) + "1" * (1 + 52) + "0" * 26


def test_a_hopeless_setting_gets_no_further_round() -> None:
    assert choose((2.0,), (4.0,), (2.5,)) == ("0", 2.0, "00" + "11" + "22" + "02" * 4)
    assert choose((4.0,), (2.0,)) == ("1", 2.0, "00" + "11")


def test_one_hiccup_throws_no_setting_out() -> None:
    """Of a short call, whose turn has many; and of one that fills a turn, which gets another."""
    short, hiccup = 2**-11, 0.02
    others = (short,) * 3 + (hiccup,) + (short,)
    assert choose((1.1 * short,), others)[0] == "1"
    assert choose((0.2,), (0.125, 0.5, 0.125))[0] == "1"
    assert choose((0.125, 0.5, 0.125), (0.2,))[0] == "0"
