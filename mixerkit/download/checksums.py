"""Checksums of what arrived, and the one that a server sends with it."""

import base64
import contextlib
import hashlib
from email.message import Message
from pathlib import Path


def server_md5(headers: Message) -> str:
    """The MD5 in hexadecimal that Google's storage sends for the whole file, or nothing."""
    for value in headers.get_all("x-goog-hash") or []:
        for one in value.split(","):
            name, _, text = one.strip().partition("=")
            if name == "md5":
                with contextlib.suppress(ValueError):
                    return base64.b64decode(text, validate=True).hex()
    return ""


def digest(path: Path, name: str) -> str:
    """A file's checksum in hexadecimal; `name` is MD5, SHA-256, …"""
    with path.open("rb") as file:
        return hashlib.file_digest(file, name.replace("-", "").lower()).hexdigest()
