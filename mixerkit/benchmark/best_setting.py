"""Which of several settings is the fastest for a batch: all are open and called in turns, so that a
slow moment of the machine meets all alike.

Letters: B batch, K classes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np

from mixerkit.benchmark.turns import TURN, Rounds, affordable, all_calls, in_turns
from mixerkit.inference.runtimes import Run
from mixerkit.timer import Call

ROUNDS = 2, 5
SECONDS = 30.0
"""Of the rounds after the first, about, where that leaves enough of them."""
HOPELESS = 1.5
"""Times the fastest call of the best, above which a setting gets no further round."""
LONG = 1.0
"""Seconds of a call, above which no hiccup makes it look hopeless."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Chosen:
    """The setting with which a call is fastest, what runs it, and its median seconds."""

    setting: str
    run: Run
    seconds: float


@dataclass
class _Entrant:
    """A setting that is open, and its calls so far."""

    run: Run
    call: Call
    rounds: Rounds = field(default_factory=list)

    @property
    def least(self) -> float:
        """Seconds of its fastest call."""
        return min(all_calls(self.rounds))

    @property
    def seconds(self) -> float:
        """Of the median round, by the median call of each."""
        return median(median(one) for one in self.rounds)


def best_setting(
    settings: Sequence[str],
    opened: Callable[[str], Run],
    images: np.ndarray,
    clock: Clock = time.perf_counter,
) -> Chosen:
    """The one whose median round is fastest on these images. Each is called once before that
    counts. In the first round they are opened one after another, and those without hope are let go;
    the others take turns."""
    entrants: dict[str, _Entrant] = {}
    for name in settings:
        run = opened(name)
        entrants[name] = _Entrant(run, partial(run, images))
        entrants[name].call()  # prepares things
        _one_round({name: entrants[name]}, clock)
        entrants = _with_hope(entrants, clock)
    if len(entrants) > 1:
        estimates = [one.least for one in entrants.values()]
        least, most = (rounds - 1 for rounds in ROUNDS)
        for _ in range(affordable(estimates, SECONDS, least, most)):
            _one_round(entrants, clock)
    name, best = min(entrants.items(), key=lambda named: named[1].seconds)
    return Chosen(name, best.run, best.seconds)


def _one_round(entrants: dict[str, _Entrant], clock: Clock) -> None:
    found = in_turns({name: one.call for name, one in entrants.items()}, 1, TURN, clock)
    for name, (calls,) in found.items():
        entrants[name].rounds.append(calls)


def _with_hope(entrants: dict[str, _Entrant], clock: Clock) -> dict[str, _Entrant]:
    """Those whose fastest call is near the best's. What seems far from it is called in a second
    turn before it is let go: of calls above 0.1 s there is only one in a turn."""
    far = {name: one for name, one in _far(entrants).items() if one.least < LONG}
    _one_round(far, clock)
    return {name: entrants[name] for name in entrants if name not in _far(entrants)}


def _far(entrants: dict[str, _Entrant]) -> dict[str, _Entrant]:
    limit = HOPELESS * min(one.least for one in entrants.values())
    return {name: one for name, one in entrants.items() if one.least > limit}
