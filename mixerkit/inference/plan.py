"""What computes a model fastest on this machine: all ways are tried for a while.

A single image and many at once are two questions: what shares one product among all cores is good
for the first, what gives each core images of its own for the second. A large batch is computed as
slices: activations that leave the processor's cache make every runtime slower, not faster, with
more images at once.

Letters: B batch, K classes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.runtimes import Run
from mixerkit.results import usable_cores
from mixerkit.timer import Call, interleave

SLICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = 0.5
"""Of one call, beyond which slices grow no further, once they have `FEW` images and each core its
part of them."""
FEW, FEW_FOR_EACH, WORTH_A_CALL = 8, 2, 0.01
"""Images at once by which ways for many are told apart, where they take no more than `SECONDS`,
but `FEW_FOR_EACH` core in any case: weights that were fetched serve them all. Of a small model it
is as many as take `WORTH_A_CALL` seconds, or what it costs to give each core a part would decide.
Slices grow to as many, to `FEW` and to these seconds in any case. Always a multiple of the cores,
which share them."""
ROUNDS, FINALISTS = 5, 2
"""Turns of each way, of which the median counts: what slow moments do to a way is its own, too. A
stream for each core loses less by them than threads that wait for each other."""
CONTEST, FEWEST_ROUNDS = 10.0, 3
"""Seconds of a contest, about, before the last: of calls that take long there are fewer turns, as
no slow moment is as long."""
REST = 0.01
"""Seconds before each turn: of another way's threads, which wait by computing for a while."""
FINAL, MOST_ROUNDS = 5.0, 25
"""Seconds of the last contest, about, between the best size of each finalist, as all before was
decided by few turns; and how many it takes at most, which is at least as many as before."""
HOPELESS, LOOKS = 1.5, 2
"""Times the best way's seconds: what takes longer at so many looks gets no further turns."""
LONG_CALL, FAR, LASTING = 1.0, 8, 0.1
"""Seconds of a call, above which one look says that it is hopeless, and its first call alone if
that takes `FAR` times the best's, whatever it prepares. Calls above `LASTING` seconds are not made
once more before their turns."""
LONG = 20.0
"""Seconds that it may take without saying how long it will."""
LEAST_LOOK = 0.01
"""Seconds of calls of which the fastest counts: one slow moment must not decide."""
GAIN = 0.98
"""What two doublings of a slice must come down to, or larger ones are not tried."""


@dataclass(frozen=True)
class Choice:
    """`backend`: a key of the candidates. `slice`: images computed at once. `seconds`: of one image
    then."""

    backend: str
    slice: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """How a single image is computed, and how `many` are."""

    one: Choice
    many: Choice

    def for_batch(self, images: int) -> Choice:
        """How so many images are computed."""
        return self.one if images == 1 else self.many


def sliced(run: Run, images_B: np.ndarray, size: int, even: bool = True) -> np.ndarray:
    """The result [B, K], computed in slices of at most `size` images each: about equal ones, or
    full ones and a rest."""
    count = len(images_B)
    if count <= size:
        return run(images_B)
    cuts: int | list[int] = -(-count // size) if even else list(range(size, count, size))
    return np.concatenate([run(part) for part in np.array_split(images_B, cuts)])


@dataclass(frozen=True)
class _Entrant:
    """A way that is open, and what it took for the images of its contest."""

    name: str
    run: Run
    seconds: float = 0.0


def fastest(
    candidates: Mapping[str, Callable[[], Run]],
    images: Callable[[int], np.ndarray],
    watch: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Least seconds an image. A way that cannot be opened is left out, if there is another, and
    `watch` is told. Ways are opened one after another and measured in turns with the best
    so far, so that few are open at once; the best for many are tried with each size of slice."""
    alone: Sequence[_Entrant] = ()
    together: Sequence[_Entrant] = ()
    few = 0
    failed: list[UserError] = []
    start = time.monotonic()
    for number, (name, make) in enumerate(candidates.items(), start=1):
        try:
            entrant = _Entrant(name, make())
        except UserError as error:
            if str(error) not in map(str, failed):  # with any number of threads
                watch(f"{name} is left out: {error}")
            failed.append(error.with_traceback(None))  # its frames hold what could not be opened
            continue
        few = few or _few(entrant.run, images)
        alone = _contest(alone, entrant, images(1))[:1]
        together = _contest(together, entrant, images(few))[:FINALISTS]
        del entrant  # which may have won nothing, and is not to be open beside the next
        if number == 2:
            expected = (time.monotonic() - start) / number * len(candidates)
            if expected > LONG:
                watch(f"that takes about {expected:.0f} s")
    if not alone:
        raise failed[0]
    one = Choice(alone[0].name, 1, alone[0].seconds)
    del alone  # it need not be open any longer
    return Plan(one, _best_slice(together, images, few))


def _few(run: Run, images: Callable[[int], np.ndarray]) -> int:
    """So many images that ways for many can be told apart by them."""
    each = _seconds(partial(run, images(1)))
    wanted = max(FEW, min(SLICES[-1], int(WORTH_A_CALL / each)))
    cores = usable_cores()
    return cores * max(FEW_FOR_EACH, min(wanted, int(SECONDS / each)) // cores)


def _contest(
    known: Sequence[_Entrant], entrant: _Entrant, images_B: np.ndarray
) -> Sequence[_Entrant]:
    """All of them, the fastest first; a hopeless entrant is not among them."""
    best = known[0].seconds if known else math.inf
    look = _look(partial(entrant.run, images_B), best)
    if look > HOPELESS * best:
        return known
    all_of_them = {one.name: one for one in (*known, entrant)}
    calls: dict[str, Call] = {name: partial(one.run, images_B) for name, one in all_of_them.items()}
    rounds = _rounds(look + sum(one.seconds for one in known))
    seconds = _turns(calls, rounds, min(look, best))
    measured = [replace(one, seconds=median(seconds[name])) for name, one in all_of_them.items()]
    return sorted(measured, key=lambda one: one.seconds)


def _rounds(seconds: float) -> int:
    """How many turns each gets, if one round takes so long."""
    return min(ROUNDS, max(FEWEST_ROUNDS, int(CONTEST / seconds)))


def _turns(calls: Mapping[str, Call], rounds: int, shortest: float) -> dict[str, list[float]]:
    """Seconds of every call, by turns; the `shortest` takes about so long."""
    warmup = 0 if shortest > LASTING else 1
    return interleave(calls, rounds=rounds, warmup=warmup, least_turn=LEAST_LOOK, rest=REST)


def _look(call: Call, best: float) -> float:
    """Seconds of its fastest call, after one that may have to prepare things; another look where
    that seems hopeless beside the `best`, unless it took so long that no slow moment can be why."""
    first = _once(call)
    if first > max(LONG_CALL, FAR * best):
        return first
    seconds = _least(call)
    for _ in range(LOOKS - 1):
        if HOPELESS * best < seconds < LONG_CALL:
            seconds = min(seconds, _seconds(call))
    return seconds


def _best_slice(
    finalists: Sequence[_Entrant], images: Callable[[int], np.ndarray], few: int
) -> Choice:
    best_of_each = [_best_size(one, images, few) for one in finalists]
    if len(best_of_each) == 1:
        return best_of_each[0]
    taken = sum(max(best.seconds * best.slice, LEAST_LOOK) + REST for best in best_of_each)
    rounds = max(ROUNDS, min(MOST_ROUNDS, int(FINAL / taken)))
    return min(
        _in_slices(finalists, best_of_each, images, rounds), key=lambda choice: choice.seconds
    )


def _best_size(one: _Entrant, images: Callable[[int], np.ndarray], few: int) -> Choice:
    """Sizes grow while that gains anything, and in any case to `few`, as of less some cores would
    get nothing, and to `FEW`, as weights would be fetched for few images. The best of them in
    turns."""
    tried: list[Choice] = []
    for size in SLICES:
        taken = _seconds(partial(one.run, images(size)))
        tried.append(Choice(one.name, size, taken / size))
        gained = not _gained_nothing([choice.seconds for choice in tried])
        if size >= max(few, FEW) and (taken > SECONDS or (taken > WORTH_A_CALL and not gained)):
            break
    rounds = _rounds(sum(choice.seconds * choice.slice for choice in tried))
    found = _in_slices([one], tried, images, rounds)
    return min(found, key=lambda choice: choice.seconds)


def _in_slices(
    entrants: Sequence[_Entrant],
    choices: Sequence[Choice],
    images: Callable[[int], np.ndarray],
    rounds: int,
) -> Sequence[Choice]:
    """These ways and sizes, as many turns take on the median."""
    runs = {one.name: one.run for one in entrants}
    calls: dict[str, Call] = {
        f"{choice.backend}:{choice.slice}": partial(runs[choice.backend], images(choice.slice))
        for choice in choices
    }
    shortest = min(choice.seconds * choice.slice for choice in choices)
    turns = _turns(calls, rounds, shortest)
    return [
        replace(choice, seconds=median(turns[f"{choice.backend}:{choice.slice}"]) / choice.slice)
        for choice in choices
    ]


def _gained_nothing(each: Sequence[float]) -> bool:
    return len(each) > 2 and min(each[-2:]) > GAIN * min(each[:-2])


def _seconds(call: Call) -> float:
    """Of the fastest of some calls, after one that may have to prepare things."""
    call()
    return _least(call)


def _least(call: Call) -> float:
    """Seconds of the fastest of some calls: one slow moment must not decide."""
    taken: list[float] = []
    while sum(taken) < LEAST_LOOK:
        taken.append(_once(call))
    return min(taken)


def _once(call: Call) -> float:
    (seconds,) = interleave({"": call}, rounds=1, warmup=0, least_turn=0)[""]
    return seconds
