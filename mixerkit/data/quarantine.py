"""Images that a run leaves out because they cannot be used: which, why, and how many at most."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixerkit.data.files import Place
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import RunFailed, UserError, warn

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Unreadable:
    """One image file that cannot be used. `index`: of the image in its split."""

    index: int
    path: Place | str
    """Where it is; the text that was logged, for one that an earlier process found."""
    reason: str

    def row(self) -> dict[str, Any]:
        """As it stands in JSON; bytes of a name that are not UTF-8 are written as \\x…."""
        file = str(self.path).encode(errors="backslashreplace").decode()
        return {"index": self.index, "file": file, "reason": self.reason}


class Quarantine:
    """The unreadable images of a run's splits, each remembered once.

    `max_unreadable`: the share of a split that may be unreadable, rounded up to whole images.
    `log` is called with the row of every image that is new: split, index, file, reason; `say` with
    a line for each class of which no image is left.
    """

    def __init__(
        self,
        max_unreadable: float,
        log: Callable[[dict[str, Any]], None],
        say: Callable[[str], None] = warn,
    ) -> None:
        self.max_unreadable, self.log, self.say = max_unreadable, log, say
        self.found: dict[str, dict[int, Unreadable]] = {}
        self._counted: dict[str, int] = {}
        """How many images of a split were found when its classes were last looked at."""
        self._lost: set[tuple[str, str]] = set()

    def rows(self) -> list[dict[str, Any]]:
        """As they are logged, of all splits."""
        return [
            {"split": name} | one.row()
            for name, known in self.found.items()
            for one in known.values()
        ]

    def recall(self, rows: Iterable[dict[str, Any]], is_broken: Callable[[str, int], bool]) -> None:
        """Take over `rows` that were logged before; images that are whole by now, as `is_broken`
        says of (split, index), do not count any more. A row of an image that its split does not
        have (`is_broken` raises `IndexError`) is passed over with a warning."""
        for row in rows:
            split, index = row["split"], row["index"]
            try:
                broken = is_broken(split, index)
            except IndexError:
                warn(f"{split} has no image {index}: what is known of it is passed over.")
                continue
            if broken:
                one = Unreadable(index, row["file"], row["reason"])
                self.found.setdefault(split, {})[index] = one

    def add(self, split: ImageSplit, unreadable: Iterable[Unreadable]) -> None:
        """Remember and log what is new.

        Raises `RunFailed` when more images of the split are unreadable than are allowed, after
        all of them were logged.
        """
        known = self.found.setdefault(split.name, {})
        for one in unreadable:
            if one.index not in known:
                known[one.index] = one
                self.log({"split": split.name} | one.row())
        # rounded up: one broken file is no reason to stop; and 29 % of 100 are 29
        allowed = math.ceil(self.max_unreadable * len(split) - 1e-9)
        if len(known) > allowed:
            raise RunFailed(
                f"{len(known)} images of {split.name} cannot be used, and data.max_unreadable "
                f"{self.max_unreadable:g} allows {allowed} of {len(split)}: "
                f"{shown(list(known.values()))}. Replace them and resume; or start another run, "
                f"without those files or with a larger data.max_unreadable. A run that is resumed "
                f"keeps its list of files and its settings."
            )
        self._tell_lost_classes(split, known)

    def _tell_lost_classes(self, split: ImageSplit, known: dict[int, Unreadable]) -> None:
        """Say once of each class of the split that none of its images is left."""
        if self._counted.get(split.name, 0) == len(known):
            return
        self._counted[split.name] = len(known)
        count = len(split.class_names)
        images_K = np.bincount(split.labels, minlength=count)
        lost_K = np.bincount(split.labels[list(known)], minlength=count)
        for label in np.flatnonzero((images_K == lost_K) & (images_K > 0)):
            name = split.class_names[label]
            if (split.name, name) not in self._lost:
                self._lost.add((split.name, name))
                self.say(
                    f"no image of the class '{name}' in {split.name} can be used: it "
                    f"cannot be learned from them, nor measured on them"
                )


def nothing_left(split: ImageSplit, unreadable: Sequence[Unreadable]) -> str:
    """What to say of a batch in which no image can be used."""
    return (
        f"None of the {len(unreadable)} images of a batch of {split.name} can be used: "
        f"{shown(unreadable)}. Replace them and resume; or start another run, without those files "
        f"or with a larger batch_size."
    )


def none_usable(split: ImageSplit, unreadable: Sequence[Unreadable]) -> UserError:
    """The error for a split of which all images are `unreadable`."""
    return UserError(
        f"None of the {len(split)} images of {split.name} can be used: {shown(unreadable)}."
    )


def shown(unreadable: Sequence[Unreadable]) -> str:
    """The first few with what is wrong with each, for a message that says what to do."""
    first = unreadable[:NAMES_SHOWN]
    lines = [f"{one.path} ({one.reason.partition('. ')[0].rstrip('.')})" for one in first]
    return ", ".join(lines) + (", …" if len(unreadable) > NAMES_SHOWN else "")
