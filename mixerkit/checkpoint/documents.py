"""JSON documents: read strictly, and written in one way."""

import errno
import json
import math
import stat
from pathlib import Path
from typing import Any

from mixerkit.errors import Unreadable, UserError

JSON_LIMIT = 64 * 2**20
"""Bytes; a larger JSON file is refused before it is read."""
DESCRIPTION_LIMIT = 2 * 2**20
"""Bytes of a file that says what others hold (a manifest, a model's config.json): the class names
of ImageNet-21k take half of it, and the worst such file 24 times its size in memory."""
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that say that no such file is there; all others may pass."""


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The mapping in a JSON file of at most `limit` bytes; errors name the file."""
    return json_mapping(path, read_limited(path, limit))


def read_limited(path: Path, limit: int, links: bool = True) -> bytes:
    """The bytes of a plain file of at most `limit`; without `links`, not through a link."""
    try:
        found = path.stat(follow_symlinks=links)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a plain file.")
        if found.st_size > limit:
            raise UserError(f"{path} is larger than the {limit >> 20} MiB allowed for it.")
        return path.read_bytes()
    except OSError as error:
        raise not_read(path, error) from error


def not_read(path: Path, error: OSError) -> UserError:
    """What to raise for a file that is missing, or (`Unreadable`) that is there and not read."""
    kind = UserError if error.errno in MISSING else Unreadable
    return kind(f"Cannot read {path}: {error.strerror}.")


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
