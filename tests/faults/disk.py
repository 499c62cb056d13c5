"""Disks that are full, read-only or gone while a run is at work on them."""

import errno
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mixerkit.checkpoint.manifest import verify_folder
from tests.faults.child import Ended
from tests.faults.fault import Fault, Trial, in_turn
from tests.faults.sample import assert_same_end, go_on, left_over, newest_step, undisturbed
from tests.faults.saves import AFTER, BEFORE, NAME, before_the_save, file_calls

PAGE = 4096
"""Bytes; a tmpfs hands out whole pages."""
SAVE = f"checkpoints/step-{AFTER:08d}"
ELSEWHERE = {
    "choices.json": "mixerkit.checkpoint.run:RunFolder.save_choices",
    "evaluation.json": "mixerkit.checkpoint.run:RunFolder.save_evaluation",
    "model": "mixerkit.checkpoint.run:RunFolder.save_model",
    "report.html": "mixerkit.insight.report:write_atomic",
}
"""What else a run writes, and the function that does it when it is first called."""


@dataclass(frozen=True)
class Material:
    """A run just before a save, and what can be done to its disk on this machine."""

    run: Path
    points: list[Callable[[Trial], None]]


# -- full ------------------------------------------------------------------------------------


def out_of_pages(trial: Trial, free: int) -> None:
    """So many pages are free as the run goes on: too few for its next save."""
    with _tmpfs(trial) as disk:
        found = os.statvfs(disk)
        used = found.f_frsize * (found.f_blocks - found.f_bfree)
        _remount(disk, f"size={used + free * PAGE}")
        ended = go_on(disk, NAME).wait()
        _remount(disk, "size=64m")
        _assert_kept(disk, ended, errno.ENOSPC)


def out_of_files(trial: Trial, free: int) -> None:
    """So many files may be made as the run goes on: too few for its next save."""
    with _tmpfs(trial) as disk:
        found = os.statvfs(disk)
        _remount(disk, f"nr_inodes={found.f_files - found.f_ffree + free}")
        ended = go_on(disk, NAME).wait()
        _remount(disk, "nr_inodes=10k")
        _assert_kept(disk, ended, errno.ENOSPC)


def call_fails(trial: Trial, number: int, error: int) -> None:
    """File call `number` of the save fails. The run can do without some, such as those that take
    the oldest checkpoint away, and then says so and leaves that to whoever goes on."""
    disk = _copied(trial, trial.folder / "disk")
    ended = go_on(disk, NAME, (("fail_at_file_call", (AFTER, number, error)),)).wait()
    if "Cannot read run/" in ended.err:
        _assert_one_message(ended, 2)  # bad input, whatever the reason
        return _assert_goes_on(disk, BEFORE)
    if ended.code:
        return _assert_kept(disk, ended, error)
    if left_over(disk / "run"):
        assert re.search(rf"run/{SAVE[:12]}.* could not be removed: \[Errno {error}\]", ended.err)
        assert go_on(disk, NAME).wait().code == 0
    assert_same_end(disk / "run", undisturbed(NAME).path)


def call_fails_elsewhere(trial: Trial, name: str, number: int, error: int) -> None:
    """File call `number` fails while a run from the beginning writes the file or folder `name`."""
    hook = ("fail_at_file_call", ((ELSEWHERE[name], 1), number, error))
    ended = go_on(trial.folder, NAME, (hook,)).wait()
    assert f"run/{name}" in _named(ended.err), ended
    _assert_kept(trial.folder, ended, error, least=0)


def file_too_large(trial: Trial, size: int) -> None:
    """No file may grow beyond `size` bytes."""
    disk = _copied(trial, trial.folder / "disk")
    ended = go_on(disk, NAME, (("limit_file_size", (AFTER, size)),)).wait()
    _assert_kept(disk, ended, errno.EFBIG)


def read_only(trial: Trial) -> None:
    """Nothing can be written where the run goes on."""
    with _tmpfs(trial) as disk:
        _remount(disk, "ro")
        ended = go_on(disk, NAME).wait()
        _remount(disk, "rw")
        _assert_one_message(ended, 2)  # it was told a folder that it cannot use
        assert f"Cannot write in run: {os.strerror(errno.EROFS)}" in ended.err, ended
        _assert_goes_on(disk, BEFORE)


def _assert_kept(disk: Path, ended: Ended, error: int, least: int = BEFORE) -> None:
    """The run said what happened where and what is intact; with the trouble gone it goes on as if
    there was none."""
    _assert_one_message(ended, 1)
    assert os.strerror(error) in ended.err, ended.err
    assert _named(ended.err), ended.err
    assert error != errno.ENOSPC or re.search(r"Free at least \d+ MiB", ended.err), ended.err
    newest = newest_step(disk / "run")
    assert newest >= least, newest
    if newest:
        is_finished = (disk / "run" / "model").exists()
        intact = f"The checkpoint of step {newest} is intact"
        assert intact in ended.err or (is_finished and "its model kept" in ended.err), ended.err
        verify_folder(disk / "run" / "checkpoints" / f"step-{newest:08d}", kind="checkpoint")
    _assert_goes_on(disk, newest)


def _assert_one_message(ended: Ended, code: int) -> None:
    assert ended.code == code, ended
    assert ended.err.startswith("mixer: error: ") and "Traceback" not in ended.err, ended.err
    assert ended.err.count("mixer: ") == 1, ended.err


def _named(said: str) -> list[str]:
    """The paths in the run that a message names, but those of temporary files."""
    return re.findall(r"\brun/(?!\S*\.unfinished)[\w./-]+", said)


def _assert_goes_on(disk: Path, newest: int) -> None:
    """From its newest checkpoint, if that was not the end, to the end of a run on a good disk."""
    finished = (disk / "run" / "model").exists()
    ended = go_on(disk, NAME).wait()
    assert ended.code == 0, ended
    assert finished or not newest or f"resumed at step {newest} of" in ended.out, ended
    assert_same_end(disk / "run", undisturbed(NAME).path)


# -- gone ------------------------------------------------------------------------------------

MOMENTS = {
    "step": ("mixerkit.training.update:Update.__call__", 2),
    "save": ("mixerkit.checkpoint.run:RunFolder.save_checkpoint", 1),
    "middle of a save": ("mixerkit.checkpoint.files:sync", 4),
    "evaluation": ("mixerkit.model.mixer:MlpMixer.forward", 5),
}
"""Function and call as which something is taken away from the run."""


def removed(trial: Trial, name: str, moment: str, file: bool) -> None:
    """The folder `name` is removed from under the run, and perhaps a file put there."""
    disk = _copied(trial, trial.folder / "disk")
    put = f"; touch {name}" if file else ""
    command = ["sh", "-c", f"rm -r {name}{put}"]
    ended = go_on(disk, NAME, (("run_in", (*MOMENTS[moment], command)),)).wait()
    if ended.code or name == "run":
        _assert_one_message(ended, 1)
        assert _named(ended.err), ended.err
    if (disk / name).is_file():
        (disk / name).unlink()
    if (disk / "run").exists() and not (disk / "run" / "checkpoints").exists():
        _assert_refused(disk)
        shutil.copytree(trial.shared.run / "checkpoints", disk / "run" / "checkpoints")
    ended = go_on(disk, NAME).wait()
    assert ended.code == 0, ended
    assert_same_end(disk / "run", undisturbed(NAME).path)


def _assert_refused(disk: Path) -> None:
    """Without its checkpoints the run does not go on: it would begin again."""
    ended = go_on(disk, NAME).wait()
    _assert_one_message(ended, 2)
    assert "run/checkpoints" in _named(ended.err) and "put the folder back" in ended.err, ended.err


# -- small disks -----------------------------------------------------------------------------


def _copied(trial: Trial, disk: Path) -> Path:
    shutil.copytree(trial.shared.run, disk / "run")
    return disk


@contextmanager
def _tmpfs(trial: Trial) -> Iterator[Path]:
    """A small disk of its own with the run on it."""
    disk = trial.folder / "disk"
    disk.mkdir()
    _mount(disk)
    try:
        yield _copied(trial, disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def _mount(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


@cache
def may_mount() -> bool:
    """Whether this user may mount a disk in memory."""
    with TemporaryDirectory() as folder:
        try:
            _mount(Path(folder))
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
    return True


# -- every point -----------------------------------------------------------------------------


def prepare(folder: Path) -> Material:
    """A run, and every point."""
    run = before_the_save(folder)
    calls = range(len(file_calls(folder)))
    points = in_turn(
        [partial(call_fails, number=number, error=errno.ENOSPC) for number in calls],
        _on_small_disks(run) if may_mount() else [],
        _elsewhere(folder / "straight"),
        [
            partial(removed, name=name, moment=moment, file=file)
            for name in ("run", "run/checkpoints")
            for moment in MOMENTS
            for file in (False, True)
        ],
        [partial(file_too_large, size=size) for size in (8_192, 40_000, 64_000)],
    )
    return Material(run, points)


def _elsewhere(folder: Path) -> list[Callable[[Trial], None]]:
    """Every file call of what a run writes besides checkpoints, found in a run."""
    folder.mkdir()
    lists = {name: folder / f"calls-{name}" for name in ELSEWHERE}
    hooks = tuple(
        ("list_file_calls", ((ELSEWHERE[name], 1), str(path))) for name, path in lists.items()
    )
    assert go_on(folder, NAME, hooks).wait().code == 0
    return [
        partial(call_fails_elsewhere, name=name, number=number, error=errno.ENOSPC)
        for name, path in lists.items()
        for number in range(len(path.read_text().split()))
    ]


def _on_small_disks(run: Path) -> list[Callable[[Trial], None]]:
    """Every page and every file that a save needs may be the one that is missing."""
    files = list((run / "checkpoints" / f"step-{BEFORE:08d}").iterdir())
    pages = sum(math.ceil(file.stat().st_size / PAGE) for file in files)
    return [
        *(partial(out_of_pages, free=free) for free in range(pages)),
        *(partial(out_of_files, free=free) for free in range(len(files) + 1)),
        read_only,
    ]


def not_mounted(_: Any) -> str:
    """What is left out where small disks cannot be made."""
    return "" if may_mount() else "disks that are full or read-only, which this user may not mount"


def disk_trouble(trial: Trial) -> None:
    """The trial's point."""
    trial.shared.points[trial.number](trial)


FAULTS = (
    Fault(
        "F13",
        "a disk full at every page, file and call of a save, and at every call that writes "
        "other results; read-only; folders removed",
        "the checkpoint before is intact, one message says what failed where and what is "
        "needed; that mended, the run ends bitwise equal",
        trials=None,
        short=4,
        run=disk_trouble,
        prepare=prepare,
        counts="points",
        points=lambda material: len(material.points),
        left_out=not_mounted,
    ),
)
