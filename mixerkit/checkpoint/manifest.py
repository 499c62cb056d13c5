"""The manifest of a folder: size and SHA-256 of every file, and what the folder is about."""

import hashlib
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from mixerkit.checkpoint.documents import (
    DESCRIPTION_LIMIT,
    json_bytes,
    json_mapping,
    not_read,
    read_limited,
)
from mixerkit.errors import UserError

MANIFEST = "manifest.json"
FORMAT, VERSION = "mixerkit manifest", 1


class OtherFormat(UserError):
    """Whole, and written in a form of another version than is read here: it is to be left alone."""


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
    text = read_limited(path, DESCRIPTION_LIMIT, links)
    manifest = json_mapping(path, text)
    about, files, version = (manifest.get(key) for key in ("about", "files", "version"))
    if text != _as_written(manifest):
        raise UserError(_damaged(path, "its text does not match its own SHA-256"))
    if manifest.get("format") == FORMAT and type(version) is int and version > VERSION:
        raise OtherFormat(written_by_newer(path, VERSION, version))
    known = isinstance(about, dict) and isinstance(files, dict)
    if not known or text != manifest_text(about, files):  # type: ignore[arg-type]
        raise UserError(_damaged(path, "it is no manifest of mixerkit's"))
    return manifest


def written_by_newer(path: Path, expected: int, found: int) -> str:
    """What to say of a form that did not exist yet when this version was made."""
    return (
        f"{path} was written by a newer mixerkit: this one reads format {expected}, found format "
        f"{found}. Update mixerkit, and leave the folder as it is."
    )


def _as_written(manifest: dict[str, Any]) -> bytes:
    """The text of `manifest`, of any version, with the SHA-256 that it should carry; nothing where
    brackets are nested deeper than we would write them."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    try:
        digest = hashlib.sha256(json_bytes(content)).hexdigest()
        return json_bytes(content | {"sha256": digest})
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
        raise UserError(f"{path} is missing: {MANIFEST} lists it.{RESTORE}") from None
    except OSError as error:
        raise not_read(path, error) from error
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


RESTORE = " Restore it from a copy."


def _damaged(path: Path, found: str) -> str:
    return f"{path} was changed or damaged after it was saved: {found}.{RESTORE}"


def without_advice(error: UserError | str) -> str:
    """What an error says is wrong, for a message that knows of something better to do."""
    return str(error).removesuffix(RESTORE)
