"""What computes a model fastest on this machine: tried for a few seconds, and kept.

A large batch is computed as slices: activations that leave the processor's cache make every runtime
slower, not faster, with more images at once.

Letters: B batch, K classes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.download import cache_folder
from mixerkit.inference.runtimes import Run
from mixerkit.results import describe_machine, describe_versions
from mixerkit.spec.strict import from_dict
from mixerkit.timer import Call, interleave

SLICES = (1, 2, 4, 8, 16, 32)
SECONDS = 0.5
"""Of one turn of a candidate, beyond which larger slices are not tried."""
ROUNDS, FEW, FINALISTS = 3, 4, 2


@dataclass(frozen=True)
class Plan:
    """`backend`: a key of the candidates. `slice`: images computed at once. `seconds`: of one image
    then."""

    backend: str
    slice: int
    seconds: float


def sliced(run: Run, images_B: np.ndarray, size: int) -> np.ndarray:
    """The result [B, K], computed in slices of about equal size, at most `size` images each."""
    if len(images_B) <= size:
        return run(images_B)
    parts = -(-len(images_B) // size)
    return np.concatenate([run(part) for part in np.array_split(images_B, parts)])


def kept_plan(
    about: Mapping[str, Any],
    candidates: Mapping[str, Callable[[], Run]],
    images: Callable[[int], np.ndarray],
    folder: Path | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> Plan:
    """The fastest of `candidates`, from the user's cache or measured now with so many `images`.
    `about`: what the speed depends on, besides this machine and the versions of its packages.
    `watch` is told what is measured and found."""
    described = {
        "about": dict(about),
        "candidates": sorted(candidates),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    text = json.dumps(described, sort_keys=True).encode()
    path = (folder or plans_folder()) / f"{hashlib.sha256(text).hexdigest()}.json"
    known = _read(path)
    if known and known.backend in candidates:
        return known
    watch(f"measuring which of {len(candidates)} ways to compute is fastest here, once …")
    plan = fastest({name: make() for name, make in candidates.items()}, images)
    _keep(path, plan)
    watch(f"{plan.backend}, {plan.slice} at once: {1 / plan.seconds:,.0f} images a second")
    return plan


def plans_folder() -> Path:
    """Where plans are kept; it may be removed at any time."""
    return cache_folder() / "plans"


def fastest(runs: Mapping[str, Run], images: Callable[[int], np.ndarray]) -> Plan:
    """Least seconds an image: all backends are measured in turns on a few images, then the best two
    with each size of slice."""
    first = {name: partial(run, images(FEW)) for name, run in runs.items()}
    known = interleave(first, rounds=ROUNDS, warmup=1, least_turn=0.01)
    best = sorted(runs, key=lambda name: min(known[name]))[:FINALISTS]
    calls: dict[tuple[str, int], Call] = {}
    for name in best:
        for size in SLICES:
            call = calls[name, size] = partial(runs[name], images(size))
            if _seconds(call) > SECONDS:
                break
    named = {f"{name}:{size}": call for (name, size), call in calls.items()}
    seconds = interleave(named, rounds=ROUNDS, warmup=1, least_turn=0.01)
    plans = [Plan(name, size, min(seconds[f"{name}:{size}"]) / size) for name, size in calls]
    return min(plans, key=lambda plan: plan.seconds)


def _seconds(call: Call) -> float:
    call()
    return min(interleave({"": call}, rounds=1, warmup=0, least_turn=0)[""])


def _read(path: Path) -> Plan | None:
    """A plan that was kept; one that cannot be read is made again."""
    try:
        plan = from_dict(Plan, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.slice >= 1 else None


def _keep(path: Path, plan: Plan) -> None:
    """For the next time; where it cannot be kept, it is measured again."""
    from mixerkit.checkpoint.files import write_atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(plan)).encode())
    except OSError:
        return
