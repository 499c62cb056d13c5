"""Files and folders that appear whole or not at all.

Order of a folder: write into a temporary folder beside it, sync every file, the manifest
last, sync the folder, rename it, sync its parent. What a killed process leaves behind carries
the prefix `UNFINISHED` and is never read.
"""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.manifest import MANIFEST, describe_file, manifest_text
from mixerkit.errors import UserError, warn

UNFINISHED, FORMER = ".unfinished-", "-former"
"""What a writer's temporary names begin with, and what those of replaced folders end with."""
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Linux: paths as they are; both names exist and are swapped (renameat2(2))."""


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a kill, sees the old file or the new one."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` if the block succeeds.

    An `OSError` that comes out of it names `path`.
    """
    temporary = _temporary(path)
    with _naming(path):
        try:
            yield temporary
            sync(temporary)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def new_files(paths: Sequence[Path]) -> Iterator[Path]:
    """A temporary folder to write files in that have the names of `paths`, all of one folder. They
    take their places in this order if the block succeeds; none is overwritten, and none is left
    there when one cannot. An `OSError` that comes out of it names the first of `paths`."""
    temporary, placed = _temporary(paths[0]), list[Path]()
    with _naming(paths[0]):
        temporary.mkdir()
        try:
            yield temporary
            for path in paths:
                sync(temporary / path.name)
            for path in paths:
                _place(temporary / path.name, path)
                placed.append(path)
        except BaseException:
            for path in placed:
                path.unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync(paths[0].parent)


def _place(file: Path, path: Path) -> None:
    """Give `file` the name `path`, unless something has it."""
    try:
        path.hardlink_to(file)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, *UNSUPPORTED):
            raise
        check_new(path)  # a file system without hard links
        file.rename(path)


def check_new(path: Path) -> None:
    """`UserError` when something has this name, if only a link to nothing."""
    if os.path.lexists(path):
        raise _taken(path)


def check_place(path: Path) -> None:
    """`UserError` when nothing can be written at `path`, as its folder does not exist or is not to
    be written: said before the work, in place of after it."""
    folder = path.parent
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist: make it first"
        raise UserError(f"The folder {folder} to write {path.name} into {what}.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{path} cannot be written: {why}. Give another place.") from error


def _taken(path: Path) -> UserError:
    return UserError(f"{path} already exists and is never overwritten: give another name.")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the system name `path`: they may name a temporary file, or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_folder(
    path: Path, about: dict[str, Any] | None = None, replace: bool = False
) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` with a manifest if the block succeeds.

    `about` goes into the manifest. An existing `path` is refused, unless `replace`, which swaps
    the two names when the new folder is on disk. An `OSError` that comes out of it names `path`.
    """
    if not replace:
        check_new(path)
    temporary = _temporary(path)
    with _naming(path):
        temporary.mkdir()
        try:
            yield temporary
            _write_manifest(temporary, about or {})
            former = _take_place(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)
    if former:
        _remove_at_leisure(former)


def _take_place(temporary: Path, path: Path) -> Path | None:
    """Rename `temporary` to `path`; returns where that now is which was there before.

    Where two names cannot be swapped, a kill may leave what was there under a name that
    `remove_unfinished` knows.
    """
    if not os.path.lexists(path):
        temporary.rename(path)
        return None
    if _exchange(temporary, path):
        return temporary
    former = path.with_name(f"{UNFINISHED}{path.name}{FORMER}")
    if os.path.lexists(former):
        _remove(former)
    path.rename(former)
    try:
        temporary.rename(path)
    except BaseException:
        former.rename(path)
        raise
    return former


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system cannot, and then nothing has changed."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def discard(path: Path) -> None:
    """Remove a folder, or a link to one; a kill in between leaves no half of it under its name.

    What then cannot be removed is named on stderr: it is in nobody's way.
    """
    temporary = _temporary(path)
    try:
        path.rename(temporary)
        sync(path.parent)
        _remove(temporary)
    except OSError as error:
        warn(f"{path} could not be removed: {error}.")


def _remove_at_leisure(former: Path) -> None:
    """Remove what has been replaced; what took its place is on the disk whether or not."""
    try:
        _remove(former)
    except OSError as error:
        warn(f"{former} could not be removed: {error}.")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in `folder`, and put back what they had moved away to
    replace it and did not; only for whoever holds its lock."""
    for left in folder.glob(f"{UNFINISHED}*"):
        name = left.name.removeprefix(UNFINISHED)
        if name.endswith(FORMER) and not os.path.lexists(folder / name.removesuffix(FORMER)):
            left.rename(folder / name.removesuffix(FORMER))
        else:
            _remove(left)


def _remove(path: Path) -> None:
    """Remove a file, a folder, or a link without what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each on the disk before what is in it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
    if not missing:  # a kill may have left its name unsynced
        sync(path.parent)


def sync(path: Path) -> None:
    """fsync a file, or a folder so that the names in it survive a loss of power.

    Some network and user-space file systems know no sync of folders; there, it does nothing.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        _sync_handle(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _sync_handle(handle: int) -> None:
    """Down to the disk; on macOS, fsync alone leaves it in the disk's own memory (fsync(2))."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    os.fsync(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name}-{secrets.token_hex(4)}")


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        _sync_handle(file.fileno())


def _write_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Sync every file below `folder`, then write the manifest and sync the folders."""
    # safetensors creates files for the owner only; the folder's bits already follow the umask
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(mode)
        sync(path)
        files[path.relative_to(folder).as_posix()] = describe_file(path)
    _write_synced(folder / MANIFEST, manifest_text(about, files))
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        sync(inner)
    sync(folder)
