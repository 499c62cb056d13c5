"""Command-line words → a dataclass, by tyro, with our examples under its help."""

import contextlib
import inspect
import io
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import tyro

from mixerkit.errors import UserError

Arguments = TypeVar("Arguments")

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""A switch that is off unless given."""

Word = tyro.conf.Positional[str]
"""A text given without a flag."""

Words = tyro.conf.Positional[tuple[str, ...]]
"""Texts given without a flag."""


def shown_as(metavar: str, flag: str | None = None) -> Any:
    """How the help shows an option: `metavar` for its value, and no "(default: '')"."""
    return tyro.conf.arg(name=flag, metavar=metavar, help_behavior_hint="")


WITHOUT_PREFIX = tyro.conf.arg(name="")
"""For a nested dataclass whose fields become options of the command itself."""


def parse(
    kind: type[Arguments],
    words: list[str],
    *,
    command: str,
    examples: str,
    default: Arguments | None = None,
) -> Arguments:
    """A `kind` from `words` over `default`; `kind`'s docstring heads the help.

    What tyro refuses (an unknown or misspelt option, a text for a number) and what a dataclass's
    own checks refuse is a `UserError`; help is printed and ends with `SystemExit(0)`.
    """
    complaint = io.StringIO()
    base: Any = tyro.MISSING_NONPROP if default is None else default
    helps = wants_help(words)
    if helps:
        print(_wrapped(inspect.getdoc(kind) or "") + "\n")
    try:
        with contextlib.redirect_stderr(complaint), _unwrapped(not helps):
            given: Arguments = tyro.cli(
                kind, args=words, prog=f"mixer {command}", description="", default=base
            )
            return given
    except SystemExit as stop:
        if not stop.code:
            print(f"Examples:\n{examples.rstrip()}")
            raise
        message = _plain(complaint.getvalue())
        more = f"\n`mixer {command} --help` shows every option."
        raise _user_error_behind(stop) or UserError(message + more) from None


@contextlib.contextmanager
def _unwrapped(wide: bool) -> Iterator[None]:
    """Where `wide`, tyro sees a terminal so wide that it wraps no message."""
    before = os.environ.get("COLUMNS")
    if wide:
        os.environ["COLUMNS"] = "1000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS") if wide else None
        if before is not None:
            os.environ["COLUMNS"] = before


def _plain(boxed: str) -> str:
    """tyro's message without its box, title and colours, so that all errors look alike."""
    bare = re.sub(r"\x1b\[[\d;]*m|[╭╮╰╯│─]|-{5,}", "", boxed)
    lines = [line.strip() for line in bare.splitlines() if line.strip()][1:]
    ends = [i for i, line in enumerate(lines) if line.startswith("For full helptext")]
    return "\n  ".join(lines[: ends[0] if ends else None]).replace("\n  (", " (")


def _wrapped(text: str) -> str:
    """Paragraphs filled to the terminal, or to 100 columns where that is wider."""
    width = min(100, shutil.get_terminal_size().columns)
    return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))


def _user_error_behind(stop: BaseException) -> UserError | None:
    """The check of ours that tyro reports in its own words, or None."""
    cause: BaseException | None = stop
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__context__
    return cause


def wants_help(words: list[str]) -> bool:
    """Whether the help is asked for, so that nothing needs to be found or loaded."""
    return "-h" in words or "--help" in words


def leading_word(words: list[str], switches: tuple[str, ...] = ()) -> str:
    """The first word that is not one of `switches`, or "" if that is an option.

    Some commands take their defaults from what this word names, before the options are read.
    """
    rest = [word for word in words if word not in switches]
    return rest[0] if rest and not rest[0].startswith("-") else ""


def value_of(flag: str, words: list[str]) -> str:
    """The text given for `flag` ("--flag TEXT" or "--flag=TEXT"), or ""."""
    for i, word in enumerate(words):
        if word == flag:
            return "".join(words[i + 1 : i + 2])
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return ""
