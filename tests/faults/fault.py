"""What one row of the fault programme is, and how its trials are repeated exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, TypeVar

Point = TypeVar("Point")


@dataclass(frozen=True)
class Trial:
    """What one trial gets. All chance comes from `random`, which depends on seed, fault and number
    alone; `folder` is empty and goes away afterwards; `shared` is what `prepare` made."""

    number: int
    random: Random
    folder: Path
    shared: Any


def nothing(_: Path) -> None:
    """The `prepare` of a fault whose trials share nothing."""


def all_possible(_: Any) -> str:
    """The `left_out` of a fault that can be tried on every machine."""
    return ""


@dataclass(frozen=True)
class Fault:
    """`injection` and `holds` are the row's words for people. `run` does one trial and raises when
    the promise is broken; `prepare` makes, once, what all trials may read but not change.
    `trials` of them are run by `make faults`, `short` by `make test`; None: every one of `points`.
    """

    id: str
    injection: str
    holds: str
    trials: int | None
    short: int
    run: Callable[[Trial], None]
    prepare: Callable[[Path], Any] = nothing
    counts: str = "trials"
    """What one trial is, in the plural: kills, flips, images."""
    points: Callable[[Any], int] | None = None
    """How many trials there are that differ, from what `prepare` made; None: without end."""
    left_out: Callable[[Any], str] = all_possible
    """What this machine does not allow to be tried, for people, from what `prepare` made."""


def in_turn(*kinds: Sequence[Point]) -> list[Point]:
    """Points of several kinds, mixed so that the first few are of every kind."""
    mixed = [Random(0).sample(kind, len(kind)) for kind in kinds]
    return [point for group in zip_longest(*mixed) for point in group if point is not None]


def random_of(seed: int, fault: str, number: int) -> Random:
    """The numbers of one trial, whatever ran before it."""
    return Random(f"{seed} {fault} {number}")
