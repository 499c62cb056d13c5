"""Plans are kept: a file for each shape of a model, machine and set of versions."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.download import cache_folder
from mixerkit.inference.plan import Choice, Plan, fastest
from mixerkit.inference.runtimes import Run
from mixerkit.other_programs import OtherPrograms
from mixerkit.results import describe_machine, describe_versions
from mixerkit.spec.strict import from_dict

BUSY, TIMES = 0.1, 3
"""The share of the processors that others may take while a plan is measured, or it is measured anew
the next time; and how often, where they never rest."""


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
