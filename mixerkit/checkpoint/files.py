"""Files and folders that appear whole or not at all, and the manifest that proves it.

Order of a folder: write into a temporary folder beside it, sync every file, the manifest
last, sync the folder, rename it, sync its parent. What a killed process leaves behind carries
the prefix `UNFINISHED` and is never read.
"""

import hashlib
import json
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

    `about` goes into the manifest. An existing `path` is refused, unless `replace`, which
    takes it away only when the new folder is on disk.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} already exists and is never overwritten: give another name.")
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        _write_manifest(temporary, about or {})
        if path.exists():
            discard(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def discard(folder: Path) -> None:
    """Remove a folder; a kill in between leaves no half of it under its name."""
    temporary = _temporary(folder)
    folder.rename(temporary)
    sync(folder.parent)
    shutil.rmtree(temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in `folder`; only for whoever holds its lock."""
    for left in folder.glob(f"{UNFINISHED}*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


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


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; errors name the file."""
    return _mapping(path, _read_json_bytes(path))


def _read_json_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a plain file.")
        if path.stat().st_size > JSON_LIMIT:
            raise UserError(f"{path} is larger than the {JSON_LIMIT >> 20} MiB allowed for JSON.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _mapping(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(content).__name__}.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


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


def verify_folder(path: Path, *, kind: str = "", must_list: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check every file of `path` against its manifest; returns what it says `about` itself.

    Raises `UserError` naming the first file that is missing, cut or changed, and when the folder
    is of another `kind`, or its manifest does not vouch for every file of `must_list`.
    """
    manifest = read_manifest(path)
    if kind and manifest["about"].get("kind") != kind:
        raise UserError(f"{path} holds a {manifest['about'].get('kind')}, not a {kind}.")
    for name in must_list:
        listed_entry(path, name, manifest)
    for name in manifest["files"]:
        check_file(path, name, listed_entry(path, name, manifest))
    return dict(manifest["about"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, after checking it against the checksum that it carries."""
    path = folder / MANIFEST
    text = _read_json_bytes(path)
    manifest = _mapping(path, text)
    about, files = manifest.get("about"), manifest.get("files")
    known = isinstance(about, dict) and isinstance(files, dict)
    if not known or text != manifest_text(about, files):  # type: ignore[arg-type]
        raise UserError(_damaged(path, "its text does not match its own SHA-256"))
    return manifest


def listed_entry(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What `folder`'s manifest lists for the file `name`; a file it leaves out is a `UserError`."""
    entry = manifest["files"].get(name)
    if not isinstance(entry, dict):
        raise UserError(
            f"{folder / MANIFEST} does not list {name}, so that file cannot be checked. Restore "
            f"the folder from a copy."
        )
    return entry


def check_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Raise `UserError` unless `folder/name` has the size and SHA-256 of `entry`."""
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(_damaged(folder / MANIFEST, f"it lists '{name}', outside the folder"))
    try:
        problem = _difference(path, entry)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: {MANIFEST} lists it. Restore it from a copy."
        ) from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if problem:
        raise UserError(_damaged(path, problem))


def _difference(path: Path, entry: dict[str, Any]) -> str:
    """How a file differs from `entry`; empty when it does not."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return "it is not a plain file"
    if found.st_size != entry.get("size"):
        return f"{found.st_size} bytes instead of {entry.get('size')}"
    return "" if describe_file(path) == entry else f"its SHA-256 differs from {MANIFEST}"


def _damaged(path: Path, found: str) -> str:
    return f"{path} was changed or damaged after it was saved: {found}. Restore it from a copy."
