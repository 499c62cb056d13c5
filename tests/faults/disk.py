"""Disks that are full, read-only or gone while a run is at work on them."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from mixerkit.checkpoint.manifest import verify_folder
from tests.faults.child import Ended
from tests.faults.fault import Fault, Trial
from tests.faults.sample import assert_same_end, go_on, left_over, newest_step, undisturbed
from tests.faults.saves import AFTER, BEFORE, HOOKED, NAME, before_the_save

PAGE = 4096
"""Bytes; a tmpfs hands out whole pages."""

# -- full ------------------------------------------------------------------------------------


def out_of_pages(trial: Trial, free: int) -> None:
    """So many pages are free as the run goes on: too few for its next save."""
    if not may_mount():
        return call_fails(trial, free, errno.ENOSPC)
    with _tmpfs(trial) as disk:
        found = os.statvfs(disk)
        used = found.f_frsize * (found.f_blocks - found.f_bfree)
        _remount(disk, f"size={used + free * PAGE}")
        ended = go_on(disk, NAME).wait()
        _remount(disk, "size=64m")
        _assert_kept(disk, ended, errno.ENOSPC)


def out_of_files(trial: Trial, free: int) -> None:
    """So many files may be made as the run goes on: too few for its next save."""
    if not may_mount():
        return call_fails(trial, free, errno.ENOSPC)
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
    if ended.code:
        return _assert_kept(disk, ended, error, 1, 2)  # 2: what cannot be read is bad input
    if left_over(disk / "run"):
        assert f"could not be removed: [Errno {error}]" in ended.err, ended
        assert go_on(disk, NAME).wait().code == 0
    assert_same_end(disk / "run", undisturbed(NAME).path)


def file_too_large(trial: Trial, size: int) -> None:
    """No file may grow beyond `size` bytes."""
    disk = _copied(trial, trial.folder / "disk")
    ended = go_on(disk, NAME, (("limit_file_size", (AFTER, size)),)).wait()
    _assert_kept(disk, ended, errno.EFBIG)


def read_only(trial: Trial) -> None:
    """Nothing can be written where the run goes on."""
    if not may_mount():
        return call_fails(trial, 0, errno.EROFS)
    with _tmpfs(trial) as disk:
        _remount(disk, "ro")
        ended = go_on(disk, NAME).wait()
        _remount(disk, "rw")
        _assert_kept(disk, ended, errno.EROFS, 2)  # it was told a folder that it cannot use


def _assert_kept(disk: Path, ended: Ended, error: int, *codes: int) -> None:
    """The run said what happened where; with the trouble gone it goes on as if there was none."""
    _assert_says(ended, os.strerror(error), *codes)
    newest = newest_step(disk / "run")
    assert newest >= BEFORE, newest
    verify_folder(disk / "run" / "checkpoints" / f"step-{newest:08d}", kind="checkpoint")
    ended = go_on(disk, NAME).wait()
    assert ended.code == 0 and f"resumed at step {newest} of" in ended.out, ended
    assert_same_end(disk / "run", undisturbed(NAME).path)


def _assert_says(ended: Ended, words: str, *codes: int) -> None:
    """One message, with `words` and the run folder in it; exit code 1, or one of those given."""
    assert ended.code in (codes or (1,)), ended
    assert ended.err.startswith("mixer: error: ") and "Traceback" not in ended.err, ended.err
    assert words in ended.err and "run" in re.findall(r"\w+", ended.err), ended.err


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
        _assert_says(ended, "run")
    if (disk / name).is_file():
        (disk / name).unlink()
    ended = go_on(disk, NAME).wait()
    assert ended.code == 0, ended
    assert_same_end(disk / "run", undisturbed(NAME).path)


# -- small disks -----------------------------------------------------------------------------


def _copied(trial: Trial, disk: Path) -> Path:
    shutil.copytree(trial.shared, disk / "run")
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


POINTS: list[Callable[[Trial], None]] = [
    *(partial(out_of_pages, free=free) for free in range(18)),
    *(partial(out_of_files, free=free) for free in range(4)),
    *(partial(call_fails, number=n, error=errno.ENOSPC) for n in range(HOOKED)),
    *(partial(file_too_large, size=size) for size in (8_192, 40_000, 64_000)),
    read_only,
    *(
        partial(removed, name=name, moment=moment, file=file)
        for name in ("run", "run/checkpoints")
        for moment in MOMENTS
        for file in (False, True)
    ),
]
Random(0).shuffle(POINTS)  # so that the first few are of every kind


def disk_trouble(trial: Trial) -> None:
    """The trial's point of `POINTS`."""
    POINTS[trial.number](trial)


FAULTS = (
    Fault(
        "F13",
        "a disk full at every page, file and call of a save; read-only; folders removed",
        "the checkpoint before is intact, one message says what is missing where, and with that "
        "mended the run ends bitwise equal",
        trials=len(POINTS),
        short=5,
        run=disk_trouble,
        prepare=before_the_save,
        counts="points",
    ),
)
