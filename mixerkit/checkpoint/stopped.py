"""Why a run stopped, as its stopped.json says it."""

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mixerkit.checkpoint.documents import json_bytes
from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.records import STOPPED


def note_stop(run: Path, why: str) -> None:
    """Say why the run stops; that the disk takes no more is no new error."""
    when = datetime.now().astimezone().isoformat(" ", timespec="minutes")
    with suppress(OSError):
        write_atomic(run / STOPPED, json_bytes({"why": why, "when": when}))


def in_a_sentence(error: BaseException) -> str:
    """The first sentence of an error, without the list that it may announce."""
    if not isinstance(error, Exception):
        return f"{type(error).__name__}, before it was saved"
    first = re.split(r"(?<=\.)\s|\n", str(error), maxsplit=1)[0]
    return f"{first.removesuffix(':')}." if first.endswith(":") else first
