"""The disk that forgets does so, and a run that does not sync is caught by it."""

import os
from pathlib import Path
from random import Random

import pytest

from mixerkit.checkpoint import files, rows, run
from tests.faults.power import FAULTS
from tests.faults.program import run_fault
from tests.faults.volatile import Disk, Recorder

TEXT = b"eight by" * 8


def states(tmp_path: Path, *, sync_file: bool, sync_folder: bool) -> set[bytes | None]:
    """What may be left of one file, written, and synced or not; None where it has no name."""
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder(root)
    with recorder.watching():
        with (root / "a").open("wb") as file:
            file.write(TEXT)
            file.flush()
            if sync_file:
                os.fsync(file.fileno())
        if sync_folder:
            files.sync(root)
    found = set()
    for number in range(150):
        left = tmp_path / str(number)
        Disk(recorder.events, recorder.folders).after_power_loss(left, Random(number))
        found.add((left / "a").read_bytes() if (left / "a").exists() else None)
    return found


def test_what_is_not_synced_may_be_anything_and_what_is_synced_stays(tmp_path: Path):
    for name in ("1", "2", "3", "4"):
        (tmp_path / name).mkdir()
    nothing = states(tmp_path / "1", sync_file=False, sync_folder=False)
    assert {None, b"", TEXT, bytes(len(TEXT))} <= nothing and len(nothing) > 8
    assert states(tmp_path / "2", sync_file=True, sync_folder=False) == {None, TEXT}
    name_only = states(tmp_path / "3", sync_file=False, sync_folder=True)
    assert None not in name_only and {b"", TEXT, bytes(len(TEXT))} <= name_only
    assert states(tmp_path / "4", sync_file=True, sync_folder=True) == {TEXT}


def test_a_rename_happens_whole_or_not_at_all(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    recorder = Recorder(root)
    with recorder.watching():
        for name in ("old", "new"):
            files.write_atomic(root / name, name.encode())
        recorder.mark("both")
        (root / "new").rename(root / "old")
    seen = set()
    for number in range(40):
        left = tmp_path / str(number)
        Disk(recorder.events, recorder.folders).after_power_loss(left, Random(number))
        seen.add(tuple(sorted((path.name, path.read_text()) for path in left.iterdir())))
    assert seen == {(("new", "new"), ("old", "old")), (("old", "new"),)}


@pytest.mark.parametrize("forgotten", ["files", "folders", "rows", "parents"])
def test_a_run_that_forgets_to_sync_is_caught(monkeypatch, forgotten: str):
    sync = files.sync

    def only(is_synced):
        return lambda path: sync(path) if is_synced(path) else None

    if forgotten == "files":
        monkeypatch.setattr(files, "sync", only(Path.is_dir))
    elif forgotten == "folders":
        monkeypatch.setattr(files, "sync", only(Path.is_file))
    elif forgotten == "rows":
        monkeypatch.setattr(rows, "sync", only(Path.is_dir))
    else:
        monkeypatch.setattr(run, "make_folder", lambda path: path.mkdir(parents=True))
    assert len(run_fault(FAULTS[0], range(20), seed=0).failures) > 3
