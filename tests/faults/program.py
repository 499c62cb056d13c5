"""The fault programme: every row of it, and running them."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults.fault import Fault, Trial, random_of

MODULES = ("kills", "power", "damage", "payloads", "images", "poison", "disk", "readers", "words")
"""Each has `FAULTS`, a tuple of rows."""

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


def run_fault(
    fault: Fault, numbers: Iterable[int], seed: int, say: Say = lambda _: None
) -> tuple[list[Failure], float]:
    """(failures, seconds) of the trials `numbers` of one fault; each has a folder of its own."""
    started, failures, numbers = time.perf_counter(), [], list(numbers)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        (folder / "shared").mkdir()
        shared = fault.prepare(folder / "shared")
        for done, number in enumerate(numbers, start=1):
            error = _one(fault, number, seed, folder / f"trial-{number}", shared)
            if error:
                failures.append(Failure(f"python -m tests.faults {fault.id}:{number} --seed {seed}",
                                        error))  # fmt: skip
                say(f"\n{failures[-1].again}\n{error}")
            spent = time.perf_counter() - started
            left = spent / done * (len(numbers) - done)
            say(
                f"\r{fault.id}: {done} of {len(numbers)} {fault.counts}, {len(failures)} failures, "
                f"{spent:.0f} s, {left:.0f} s left   "
            )
    return failures, time.perf_counter() - started


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


def row(fault: Fault, trials: int, failures: list[Failure], seconds: float) -> dict[str, Any]:
    """A row of results/faults.json."""
    return {
        "id": fault.id,
        "injection": fault.injection,
        "holds": fault.holds,
        "counts": fault.counts,
        "trials": trials,
        "failures": len(failures),
        "seconds": round(seconds, 1),
        "failed": [failure.again for failure in failures[:SHOWN_FAILURES]],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The README's table."""
    lines = ["| | what is done to it | times | what held | failures |", "|---|---|---|---|---|"]
    for found in rows:
        lines.append(
            f"| {found['id']} | {found['injection']} | {found['trials']:,} {found['counts']} | "
            f"{found['holds']} | {found['failures']} |"
        )
    return "\n".join(lines)
