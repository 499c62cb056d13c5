"""What computes a model fastest on this machine: tried for a few seconds, and kept.

A single image and many at once are two questions: what shares one product among all cores is good
for the first, what gives each core images of its own for the second. A large batch is computed as
slices: activations that leave the processor's cache make every runtime slower, not faster, with
more images at once.

Letters: B batch, K classes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mixerkit.download import cache_folder
from mixerkit.errors import UserError
from mixerkit.inference.runtimes import Run
from mixerkit.other_programs import OtherPrograms
from mixerkit.results import describe_machine, describe_versions
from mixerkit.spec.strict import from_dict
from mixerkit.timer import Call, interleave

SLICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = 0.5
"""Of one call, beyond which larger slices are not tried."""
FEW, WORTH_A_CALL = 8, 0.01
"""Images at once by which ways for many are told apart, where that takes no longer; and of a small
model as many as take so many seconds, or what it costs to give each core a part would decide.
Slices grow up to these seconds in any case."""
ROUNDS, FINALISTS = 5, 2
"""Turns of each way, of which the median counts: what slow moments do to a way is its own, too. A
stream for each core loses less by them than threads that wait for each other."""
REST = 0.01
"""Seconds before each turn: of another way's threads, which wait by computing for a while."""
HOPELESS, LOOKS = 1.5, 2
"""Times the best way's seconds: what takes longer at so many looks gets no further turns."""
LEAST_LOOK = 0.01
"""Seconds of calls of which the fastest counts: one slow moment must not decide."""
GAIN = 0.98
"""What two doublings of a slice must come down to, or larger ones are not tried."""
BUSY, TIMES = 0.1, 3
"""The share of the processors that others may take while a plan is measured, or it is measured anew
the next time; and how often, where they never rest."""


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


@dataclass(frozen=True)
class _Kept:
    """What stands in the cache. `others`: the share of the processors that they took while it was
    measured, the least of so many `times`."""

    plan: Plan
    others: float
    times: int

    @property
    def holds(self) -> bool:
        """Whether it need not be measured anew."""
        return self.others <= BUSY or self.times >= TIMES


def sliced(run: Run, images_B: np.ndarray, size: int, even: bool = True) -> np.ndarray:
    """The result [B, K], computed in slices of at most `size` images each: about equal ones, or
    full ones and a rest."""
    count = len(images_B)
    if count <= size:
        return run(images_B)
    cuts: int | list[int] = -(-count // size) if even else list(range(size, count, size))
    return np.concatenate([run(part) for part in np.array_split(images_B, cuts)])


def kept_plan(
    about: Mapping[str, Any],
    candidates: Mapping[str, Callable[[], Run]],
    images: Callable[[int], np.ndarray],
    folder: Path | None = None,
    watch: Callable[[str], None] = lambda line: None,
    again: bool = False,
) -> Plan:
    """The fastest of `candidates`, from the user's cache or measured now with so many `images`;
    with `again` always measured, and where others were at work meanwhile, the next time. `about`:
    what the speed depends on, besides this machine and the versions of its packages. `watch` is
    told what is measured and found."""
    described = {
        "about": dict(about),
        "candidates": sorted(candidates),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    text = json.dumps(described, sort_keys=True).encode()
    path = (folder or plans_folder()) / f"{hashlib.sha256(text).hexdigest()}.json"
    known = None if again else _read(path)
    if known and not {known.plan.one.backend, known.plan.many.backend} <= set(candidates):
        known = None
    if known and known.holds:
        return known.plan
    watch(
        f"measuring which of {len(candidates)} ways to compute is fastest here, once …"
        if len(candidates) > 1
        else "measuring how many images at once are fastest here, once …"
    )
    others = OtherPrograms()
    plan = fastest(candidates, images, watch)
    found = _Kept(plan, others.share(), known.times + 1 if known else 1)
    if known and known.others < found.others:
        found = replace(known, times=found.times)
    _keep(path, found)
    watch(f"single images: {_told(found.plan.one)}")
    watch(f"several: {_told(found.plan.many)}, {found.plan.many.slice} at once")
    if found.others > BUSY:
        again_when = "`again` measures anew" if found.holds else "measured anew the next time"
        share = f"other programs took {found.others:.0%} of the processors meanwhile"
        watch(f"{share}; {again_when}")
    return found.plan


def _told(choice: Choice) -> str:
    return f"{choice.backend}: {1 / choice.seconds:,.0f} a second"


def plans_folder() -> Path:
    """Where plans are kept; it may be removed at any time."""
    return cache_folder() / "plans"


# -- measuring --------------------------------------------------------------------------------


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
    for name, make in candidates.items():
        try:
            entrant = _Entrant(name, make())
        except UserError as error:
            if str(error) not in map(str, failed):  # with any number of threads
                watch(f"{name} is left out: {error}")
            failed.append(error)
            continue
        few = few or _few(entrant.run, images)
        alone = _contest(alone, entrant, images(1))[:1]
        together = _contest(together, entrant, images(few))[:FINALISTS]
    if not alone:
        raise failed[0]
    one = Choice(alone[0].name, 1, alone[0].seconds)
    return Plan(one, _best_slice(together, images))


def _few(run: Run, images: Callable[[int], np.ndarray]) -> int:
    """So many images that ways for many can be told apart by them."""
    each = _seconds(partial(run, images(1)))
    wanted = max(FEW, min(SLICES[-1], int(WORTH_A_CALL / each)))
    return max(1, min(wanted, int(SECONDS / each)))


def _contest(
    known: Sequence[_Entrant], entrant: _Entrant, images_B: np.ndarray
) -> Sequence[_Entrant]:
    """All of them, the fastest first; a hopeless entrant is not among them."""
    looks = (_seconds(partial(entrant.run, images_B)) for _ in range(LOOKS))
    if known and all(seconds > HOPELESS * known[0].seconds for seconds in looks):
        return known
    all_of_them = {one.name: one for one in (*known, entrant)}
    calls: dict[str, Call] = {name: partial(one.run, images_B) for name, one in all_of_them.items()}
    seconds = interleave(calls, rounds=ROUNDS, warmup=1, least_turn=0.01, rest=REST)
    measured = [replace(one, seconds=median(seconds[name])) for name, one in all_of_them.items()]
    return sorted(measured, key=lambda one: one.seconds)


def _best_slice(finalists: Sequence[_Entrant], images: Callable[[int], np.ndarray]) -> Choice:
    calls: dict[tuple[str, int], Call] = {}
    for one in finalists:
        each: list[float] = []
        for size in SLICES:
            call = calls[one.name, size] = partial(one.run, images(size))
            each.append(_seconds(call) / size)
            taken = each[-1] * size
            if taken > SECONDS or (taken > WORTH_A_CALL and _gained_nothing(each)):
                break
    named = {f"{name}:{size}": call for (name, size), call in calls.items()}
    turns = interleave(named, rounds=ROUNDS, warmup=1, least_turn=0.01, rest=REST)
    choices = [Choice(name, size, median(turns[f"{name}:{size}"]) / size) for name, size in calls]
    return min(choices, key=lambda choice: choice.seconds)


def _gained_nothing(each: Sequence[float]) -> bool:
    return len(each) > 2 and min(each[-2:]) > GAIN * min(each[:-2])


def _seconds(call: Call) -> float:
    """Of the fastest of some calls, after one that may have to prepare things."""
    call()
    taken: list[float] = []
    while sum(taken) < LEAST_LOOK:
        taken += interleave({"": call}, rounds=1, warmup=0, least_turn=0)[""]
    return min(taken)


# -- keeping ----------------------------------------------------------------------------------


def _read(path: Path) -> _Kept | None:
    """A plan that was kept; one that cannot be read is made again."""
    try:
        known = from_dict(_Kept, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return known if min(known.plan.one.slice, known.plan.many.slice) >= 1 else None


def _keep(path: Path, found: _Kept) -> None:
    """For the next time; where it cannot be kept, it is measured again."""
    from mixerkit.checkpoint.files import write_atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(found)).encode())
    except OSError:
        return
