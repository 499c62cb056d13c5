"""Files and folders that appear whole or not at all, and the manifest that proves it.

Order of a folder: write into a temporary folder beside it, sync every file, the manifest
last, sync the folder, rename it, sync its parent. What a killed process leaves behind carries
the prefix `UNFINISHED` and is never read.
"""

import ctypes
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mixerkit.errors import UserError

UNFINISHED = ".unfinished-"
MANIFEST = "manifest.json"
FORMAT, VERSION = "mixerkit manifest", 1
JSON_LIMIT = 64 * 2**20
"""Bytes; a larger JSON file is refused before it is read."""
DESCRIPTION_LIMIT = 2 * 2**20
"""Bytes of a file that says what others hold (a manifest, a model's config.json): the class names
of ImageNet-21k take half of it, and the worst such file 24 times its size in memory."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Linux: paths as they are; both names exist and are swapped (renameat2(2))."""


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a kill, sees the old file or the new one."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` if the block succeeds."""
    temporary = _temporary(path)
    try:
        yield temporary
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def atomic_folder(
    path: Path, about: dict[str, Any] | None = None, replace: bool = False
) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` with a manifest if the block succeeds.

    `about` goes into the manifest. An existing `path` is refused, unless `replace`, which swaps
    the two names when the new folder is on disk.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} already exists and is never overwritten: give another name.")
    temporary = _temporary(path)
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
        _remove(former)


def _take_place(temporary: Path, path: Path) -> Path | None:
    """Rename `temporary` to `path`; returns where that now is which was there before."""
    if not os.path.lexists(path):
        temporary.rename(path)
        return None
    if _exchange(temporary, path):
        return temporary
    former = _temporary(path)
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
    """Remove a folder, or a link to one; a kill in between leaves no half of it under its name."""
    temporary = _temporary(path)
    path.rename(temporary)
    sync(path.parent)
    _remove(temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in `folder`; only for whoever holds its lock."""
    for left in folder.glob(f"{UNFINISHED}*"):
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
    """fsync a file, or a folder so that the names in it survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name}-{secrets.token_hex(4)}")


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The mapping in a JSON file of at most `limit` bytes; errors name the file."""
    return json_mapping(path, _read_limited(path, limit))


def _read_limited(path: Path, limit: int, links: bool = True) -> bytes:
    try:
        found = path.stat(follow_symlinks=links)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a plain file.")
        if found.st_size > limit:
            raise UserError(f"{path} is larger than the {limit >> 20} MiB allowed for it.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def json_mapping(where: Path | str, text: bytes) -> dict[str, Any]:
    """The mapping in JSON text: UTF-8, finite numbers, no key twice. Errors begin with `where`."""
    try:
        content = json.loads(
            text.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_each_once,
        )
        if b"\\u" in text:  # half a surrogate pair is no text, and could not be written again
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} must hold a JSON object, found {type(content).__name__}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is too large a number")
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is given twice")
    return mapping


def json_bytes(content: dict[str, Any]) -> bytes:
    """JSON text for people and programs; NaN and infinity are refused, for JSON has none."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


# -- the manifest -------------------------------------------------------------------------


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


def describe_file(path: Path) -> dict[str, Any]:
    """SHA-256 and size in bytes, as a manifest lists them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size": file.tell()}


def manifest_text(about: dict[str, Any], files: dict[str, dict[str, Any]]) -> bytes:
    """The one text of a manifest; its last line is the SHA-256 of what comes before."""
    content = {"format": FORMAT, "version": VERSION, "about": about, "files": files}
    digest = hashlib.sha256(json_bytes(content)).hexdigest()
    return json_bytes(content | {"sha256": digest})


def verify_folder(
    path: Path, *, kind: str = "", must_list: tuple[str, ...] = (), links: bool = True
) -> dict[str, Any]:
    """Check every file of `path` against its manifest; returns what it says `about` itself.

    Raises `UserError` naming the first file that is missing, cut or changed, and when the folder
    is of another `kind`, or its manifest does not vouch for every file of `must_list`. Without
    `links`, a symbolic link is not taken for the file that it points to.
    """
    manifest = read_manifest(path, links)
    if kind and manifest["about"].get("kind") != kind:
        raise UserError(f"{path} holds a {manifest['about'].get('kind')!s:.40}, not a {kind}.")
    for name in must_list:
        listed_entry(path, name, manifest)
    for name in manifest["files"]:
        check_file(path, name, listed_entry(path, name, manifest), links)
    return dict(manifest["about"])


def read_manifest(folder: Path, links: bool = True) -> dict[str, Any]:
    """The manifest of `folder`, after checking it against the checksum that it carries."""
    path = folder / MANIFEST
    text = _read_limited(path, DESCRIPTION_LIMIT, links)
    manifest = json_mapping(path, text)
    about, files = manifest.get("about"), manifest.get("files")
    known = isinstance(about, dict) and isinstance(files, dict)
    if not known or text != _as_written(about, files):  # type: ignore[arg-type]
        raise UserError(_damaged(path, "its text does not match its own SHA-256"))
    return manifest


def _as_written(about: dict[str, Any], files: dict[str, Any]) -> bytes:
    """`manifest_text`, or nothing where brackets are nested deeper than we would write them."""
    try:
        return manifest_text(about, files)
    except RecursionError:
        return b""


def listed_entry(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What `folder`'s manifest lists for the file `name`; a file it leaves out is a `UserError`."""
    entry = manifest["files"].get(name)
    if not isinstance(entry, dict):
        raise UserError(
            f"{folder / MANIFEST} does not list {name}, so that file cannot be checked. Restore "
            f"the folder from a copy."
        )
    return entry


def check_file(folder: Path, name: str, entry: dict[str, Any], links: bool = True) -> None:
    """Raise `UserError` unless `folder/name` has the size and SHA-256 of `entry`."""
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
        raise UserError(_damaged(folder / MANIFEST, f"it lists {name!r}, outside the folder"))
    try:
        problem = _difference(path, entry, links)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: {MANIFEST} lists it. Restore it from a copy."
        ) from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if problem:
        raise UserError(_damaged(path, problem))


def _difference(path: Path, entry: dict[str, Any], links: bool) -> str:
    """How a file differs from `entry`; empty when it does not."""
    found = path.stat(follow_symlinks=links)
    if not stat.S_ISREG(found.st_mode):
        return "it is not a plain file"
    if found.st_size != entry.get("size"):
        return f"{found.st_size} bytes instead of {entry.get('size')!r:.40}"
    return "" if describe_file(path) == entry else f"its SHA-256 differs from {MANIFEST}"


def _damaged(path: Path, found: str) -> str:
    return f"{path} was changed or damaged after it was saved: {found}. Restore it from a copy."
