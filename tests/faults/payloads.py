"""Files made to harm, opened by every way in (F8)."""

from collections.abc import Callable
from pathlib import Path

from mixerkit.errors import UserError
from tests.faults import bad_folders, bad_weights
from tests.faults.fault import Fault, Trial
from tests.faults.fuzz import measured, quiet
from tests.faults.ways_in import Payload

PAYLOADS = [
    *bad_weights.pickled(), *bad_weights.PTH, *bad_weights.NPZ, *bad_weights.SAFETENSORS,
    *bad_folders.FOLDERS, *bad_folders.CHECKPOINTS, *bad_folders.RUNS, *bad_folders.RECIPES,
    *bad_folders.STORED_RECIPES,
]  # fmt: skip


def open_payload(trial: Trial) -> None:
    """One payload, by every way in."""
    payload = PAYLOADS[trial.number % len(PAYLOADS)]
    trap, inside = trial.folder / "executed", trial.folder / "inside"
    inside.mkdir()
    path = payload.make(inside, trap)
    before = set(trial.folder.iterdir())
    for read in payload.read:
        with quiet(), measured():
            refused(payload, read, path)
        assert not trap.exists(), f"{payload.name}: code ran by {read}"
        assert set(trial.folder.iterdir()) == before, f"{payload.name}: written outside"


def refused(payload: Payload, read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except UserError:
        return
    raise AssertionError(f"{payload.name} was taken by {read}")


FAULTS = (
    Fault(
        "F8",
        "files made to harm: pickles, bombs, paths and links out, YAML tags, by every way in",
        "refused with one error within 1 s and 64 MB; nothing executed, nothing written",
        trials=len(PAYLOADS),
        short=len(PAYLOADS),
        run=open_payload,
        counts="payloads",
    ),
)
