"""The fault programme: every row of it, and running them."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from mixerkit.results import describe_commit
from tests.faults.fault import Fault, Trial, random_of

MODULES = (
    *("kills", "saves", "power", "damage", "fuzz", "mismatches", "payloads", "images", "stuck"),
    *("poison", "signals", "disk", "resumes", "readers", "repeats", "soak", "words"),
    "ranks",
)
"""Each has `FAULTS`, a tuple of rows; no other module has."""

Say = Callable[[str], None]
SHOWN_FAILURES = 20


def all_faults() -> list[Fault]:
    """Every row, in the order of its number."""
    modules = [import_module(f"tests.faults.{name}") for name in MODULES]
    found = [fault for module in modules for fault in module.FAULTS]
    return sorted(found, key=lambda fault: int(fault.id[1:]))


@dataclass(frozen=True)
class Failure:
    """One trial that broke a promise; `again` is the command that repeats it."""

    again: str
    error: str


@dataclass
class Outcome:
    """What came of the trials of one fault; `left_out` says what could not be tried here."""

    trials: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    left_out: str = ""


def run_fault(
    fault: Fault, numbers: Iterable[int] | None, seed: int, say: Say = lambda _: None
) -> Outcome:
    """The trials `numbers` of one fault, each in a folder of its own; None: as `make faults`.

    Numbers beyond the fault's points would repeat what another one does, and are left out.
    """
    started, done = time.perf_counter(), Outcome()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        (folder / "shared").mkdir()
        shared = fault.prepare(folder / "shared")
        done.left_out = fault.left_out(shared)
        wanted = _wanted(fault, numbers, shared)
        for number in wanted:
            error = _one(fault, number, seed, folder / f"trial-{number}", shared)
            if error:
                again = f"python -m tests.faults {fault.id}:{number} --seed {seed}"
                done.failures.append(Failure(again, error))
                say(f"\n{again}\n{error}")
            done.trials, done.seconds = done.trials + 1, time.perf_counter() - started
            say(_progress(fault, done, len(wanted)))
    return done


def _wanted(fault: Fault, numbers: Iterable[int] | None, shared: Any) -> Sequence[int]:
    points = fault.points(shared) if fault.points else None
    if numbers is None:
        count = points if fault.trials is None else fault.trials
        assert count is not None, f"{fault.id} has neither a number of trials nor of points"
        numbers = range(count)
    return [number for number in numbers if points is None or number < points]


def _progress(fault: Fault, done: Outcome, wanted: int) -> str:
    left = done.seconds / done.trials * (wanted - done.trials)
    return (
        f"\r{fault.id}: {done.trials} of {wanted} {fault.counts}, {len(done.failures)} failures, "
        f"{done.seconds:.0f} s, {left:.0f} s left   "
    )


def _one(fault: Fault, number: int, seed: int, folder: Path, shared: Any) -> str:
    """The trial's traceback, or an empty text."""
    folder.mkdir()
    try:
        fault.run(Trial(number, random_of(seed, fault.id, number), folder, shared))
        return ""
    except Exception:
        return traceback.format_exc(limit=-6)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def row(fault: Fault, done: Outcome, seed: int, short: bool) -> dict[str, Any]:
    """A row of results/faults.json; rows of one file may have been made at different times."""
    return {
        "id": fault.id,
        "injection": fault.injection,
        "holds": fault.holds,
        "counts": fault.counts,
        "trials": done.trials,
        "failures": len(done.failures),
        "left_out": done.left_out,
        "seconds": round(done.seconds, 1),
        "failed": [failure.again for failure in done.failures[:SHOWN_FAILURES]],
        "commit": describe_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "short": short,
    }
