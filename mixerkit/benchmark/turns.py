"""Single calls, timed one by one in turns: percentiles of them are what a user waits for."""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median, quantiles
from typing import TypeVar

from mixerkit.timer import Call

Name = TypeVar("Name", bound=Hashable)
Rounds = list[list[float]]
"""Seconds of single calls, by round."""
TURN = 0.1
SHORT = 0.05
"""Seconds of a call, below which what the contender before left running would be seen: the first
call of a turn is then not counted."""
PERCENTILES = (50, 90, 99)


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


def percentiles(seconds: list[float]) -> dict[int, float]:
    """Seconds that so many percent of the calls do not exceed."""
    if len(seconds) == 1:
        return dict.fromkeys(PERCENTILES, seconds[0])
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {percent: cuts[percent - 1] for percent in PERCENTILES}


def times_as_fast(own: Rounds, reference: Rounds) -> float:
    """The reference's seconds over one's own, by the median call of each round, in the median
    round: a slow moment meets both."""
    return median(
        median(theirs) / median(ours) for theirs, ours in zip(reference, own, strict=True)
    )
