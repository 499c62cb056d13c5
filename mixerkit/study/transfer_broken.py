"""Images of the transfer protocol that cannot be used: found before anything is trained, where a
set is small, and counted in the end.

No test image is left out unless that was asked for (`--skip-broken`). Of the images that are
trained on, and of those held out, the share that a task's recipe allows is; more of them if that
was asked for. A half is the most in either case.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixerkit.data.quarantine import Unreadable, shown
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.spec.recipe import Recipe
from mixerkit.study.rows import LEFT_OUT, Row
from mixerkit.training.setup import evaluation_loader

MOST = 0.5
"""Share of a split that trials leave out at most, whatever was asked for."""
MOST_OPENED = 2_000
"""Images of a split that are opened before anything is trained: seconds. Of more a sample is."""
OPENED_AT_ONCE = 200
"""Between two lines that tell how far that is."""
TEST, HELD_OUT, TRAINING = "test", "held-out", "training"


def kinds(splits: Splits) -> list[tuple[str, ImageSplit]]:
    """The splits that there are, each with what its images are for."""
    every = (TEST, splits.test), (HELD_OUT, splits.validation), (TRAINING, splits.train)
    return [(kind, split) for kind, split in every if split is not None]


@dataclass(frozen=True)
class Broken:
    """What cannot be used of `count` images, of which `opened` were opened."""

    kind: str
    count: int
    opened: int
    found: tuple[Unreadable, ...]

    def problem(self, share: float, skip_broken: bool) -> str:
        """Why nothing is trained; empty where that is no reason. `share`: of the images for
        training that may be left out in any case."""
        if not self._too_many(share, skip_broken):
            return ""
        if skip_broken:
            return f"{self.said()}. --skip-broken leaves out no more than half: {self._replace()}."
        may = "" if self.kind == TEST else f" ({share:.0%} may be left out)"
        does = "measures" if self.kind == TEST else "works with"
        return (
            f"{self.said()}{may}. To go on, {self._replace()}; or --skip-broken {does} the others, "
            f"and says what was left out."
        )

    def withheld(self, share: float, skip_broken: bool) -> str:
        """Why a figure is not given, after trials that left them out; empty where it is."""
        if skip_broken or not self._too_many(share, skip_broken):
            return ""
        return (
            f"{self.said()}. --skip-broken shows the figure of the others; for one of all, "
            f"{self._replace()} and begin again in another --folder."
        )

    def _replace(self) -> str:
        return f"replace {'them by whole copies' if len(self.found) > 1 else 'it by a whole copy'}"

    def _too_many(self, share: float, skip_broken: bool) -> bool:
        allowed = MOST if skip_broken else 0.0 if self.kind == TEST else share
        if self.found and len(self.found) == self.opened:
            return True
        if skip_broken:
            return len(self.found) > allowed * self.opened
        return len(self.found) > math.ceil(allowed * self.opened - 1e-9)

    def notes(self) -> Iterator[str]:
        """What to say before the start, where it is no reason not to start."""
        if self.found:
            yield f"{self.said()}; left out."
        if self.opened < self.count:
            yield (
                f"{self.opened:,} of {self.count:,} {self.kind} images were opened to see whether "
                f"they can be used; of the others that shows when they are read."
            )

    def said(self) -> str:
        """How many, and the first few by name."""
        of = f"{self.opened:,} {self.kind} images"
        if self.opened < self.count:
            of = f"{of} that were opened, a sample of {self.count:,},"
        return f"{len(self.found):,} of {of} cannot be used: {shown(self.found)}"


def looked_through(
    recipe: Recipe, splits: Splits, watch: Callable[[str], None] = lambda line: None
) -> tuple[Broken, ...]:
    """Every split, its images opened and decoded; of a large one a sample. `watch` is told now and
    then how far that is."""
    return tuple(_looked_through(recipe, splits, *each, watch) for each in kinds(splits))


def as_in_the_end(looked: Sequence[Broken]) -> tuple[Broken, ...]:
    """As figures are given or withheld in the end: held-out images with the training images, which
    they become, unless one of the two has no usable image."""
    test = [one for one in looked if one.kind == TEST]
    others = [one for one in looked if one.kind != TEST]
    empty = [one for one in others if one.found and len(one.found) == one.opened]
    count, opened = sum(one.count for one in others), sum(one.opened for one in others)
    found = tuple(image for one in others for image in one.found)
    return (*test, *(empty or [Broken(TRAINING, count, opened, found)]))


def _looked_through(
    recipe: Recipe, splits: Splits, kind: str, split: ImageSplit, watch: Callable[[str], None]
) -> Broken:
    if split.images is not None:
        return Broken(kind, len(split), len(split), ())
    data = replace(recipe.data, memory=0.0)
    loader = evaluation_loader(replace(recipe, data=data), splits, split)
    indices = sample(split, MOST_OPENED)
    found: list[Unreadable] = []
    for start in range(0, len(indices), OPENED_AT_ONCE):
        watch(f"opening {kind} images, {start:,} of {len(indices):,}")
        some = indices[start : start + OPENED_AT_ONCE]
        found += loader.pixels.unreadable(some, loader.reading)
    return Broken(kind, len(split), len(indices), tuple(found))


def sample(split: ImageSplit, most: int) -> np.ndarray:
    """Indices of up to `most` images, spread evenly; the first ones where images can only be read
    by the block."""
    if split.blocks() is not None:
        return np.arange(min(len(split), most))
    return np.unique(np.linspace(0, len(split) - 1, min(len(split), most)).astype(np.int64))


def left_out(trials: Iterable[Row], test_name: str) -> list[dict[str, Any]]:
    """The images that any of the trials left out when its figures were made, each once: its `kind`
    (test or training), index, file and reason. `test_name`: of the test split."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for trial in trials for row in trial.get(LEFT_OUT, ())):
        kind = TEST if row["split"] == test_name else TRAINING
        known = {key: row[key] for key in ("index", "file", "reason")}
        found.setdefault((kind, row["file"]), {"kind": kind} | known)
    return sorted(found.values(), key=lambda row: (row["kind"], row["file"]))


def of_kind(rows: list[dict[str, Any]], kind: str, count: int) -> Broken:
    """Those rows of `left_out` that are of one kind, of `count` images."""
    found = [Unreadable(r["index"], r["file"], r["reason"]) for r in rows if r["kind"] == kind]
    return Broken(kind, count, count, tuple(found))
