"""Fair timing on a machine that is never quite quiet.

What is compared runs in turns, A, B, C, A, B, C, …, so that a slow moment meets all alike, and a
speed-up is the median of the ratios within each round.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

Call = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """One contender beside a reference. `speedup` above 1 is faster than the reference; `low`
    and `high` are the quartiles of the rounds' ratios."""

    seconds: float
    speedup: float
    low: float
    high: float


def interleave(
    functions: Mapping[str, Call],
    *,
    rounds: int,
    warmup: int = 2,
    least_turn: float = 0.02,
    rest: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call in every round. A turn repeats a fast function until about `least_turn`
    seconds have passed; `warmup` calls of each come first and are thrown away. With a `rest` before
    each turn, threads that the one before left waiting by computing take no core from the next."""
    repeats = {name: _repeats(call, warmup, least_turn, clock) for name, call in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, call in functions.items():
            if rest:
                time.sleep(rest)
            start = clock()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((clock() - start) / repeats[name])
    return seconds


def _repeats(call: Call, warmup: int, least_turn: float, clock: Callable[[], float]) -> int:
    fastest = math.inf
    for _ in range(warmup):
        start = clock()
        call()
        fastest = min(fastest, clock() - start)
    return max(1, math.ceil(least_turn / max(fastest, 1e-7)))


def compare(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Comparison]:
    """Every contender of `interleave` beside the one named `reference`."""
    return {name: _compare(own, seconds[reference]) for name, own in seconds.items()}


def _compare(own: list[float], reference: list[float]) -> Comparison:
    ratios = [theirs / ours for ours, theirs in zip(own, reference, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Comparison(median(own), median(ratios), low, high)
