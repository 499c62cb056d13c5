"""Single calls, timed one by one in turns: percentiles of them are what a user waits for."""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median, quantiles
from typing import TypeVar

from mixerkit.timer import Call, Comparison, compare

Name = TypeVar("Name", bound=Hashable)
Rounds = list[list[float]]
"""Seconds of single calls, by round."""
TURN, REST = 0.1, 0.03
"""Seconds of a turn, and before it: threads that the one before left waiting by computing would
take a core from the next."""
SHORT = 0.05
"""Seconds of a call, below which what the contender before left running would be seen: the first
call of a turn is then not counted."""
LEAST_CALLS = {50: 1, 90: 10, 99: 100}
"""By percentile: calls below which it would be told of little more than the slowest of them."""


def in_turns(
    calls: Mapping[Name, Call],
    rounds: int,
    turn: float = TURN,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, Rounds]:
    """Seconds of every call, by round. All are called in each round, one after another, each as
    often as fits into `turn` seconds, and at least once."""
    seconds: dict[Name, Rounds] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(REST)
            seconds[name].append(_turn(call, turn, clock))
    return seconds


def _turn(call: Call, turn: float, clock: Callable[[], float]) -> list[float]:
    begin = start = clock()
    call()
    found = [clock() - start]
    if found[0] < SHORT:
        found = []
    while not found or clock() - begin < turn:
        start = clock()
        call()
        found.append(clock() - start)
    return found


def affordable(estimates: list[float], budget: float, least: int, most: int) -> int:
    """Rounds that fit into `budget` seconds, of calls that take about so long."""
    once = sum(max(seconds, TURN) for seconds in estimates)
    return max(least, min(most, math.floor(budget / once)))


def all_calls(rounds: Rounds) -> list[float]:
    """Of all rounds."""
    return [seconds for one in rounds for seconds in one]


def percentiles(seconds: list[float]) -> dict[int, float | None]:
    """Seconds that so many percent of the calls do not exceed; None where calls are too few."""
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 99
    return {
        percent: cuts[percent - 1] if len(seconds) >= least else None
        for percent, least in LEAST_CALLS.items()
    }


def times_as_fast(own: Rounds, reference: Rounds) -> Comparison:
    """The reference's seconds over one's own, by the median call of each round: the median round
    and its quartiles. A slow moment meets both."""
    both = {"own": own, "reference": reference}
    medians = {name: [median(one) for one in rounds] for name, rounds in both.items()}
    return compare(medians, "reference")["own"]
