"""Command-line words → a dataclass, by tyro, with our examples under its help."""

import contextlib
import inspect
import io
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

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


NO_NUMBER = re.compile(
    r"Error parsing (?P<flag>\S+): "
    r"(?:no type matching .* could be instantiated from \[|"
    r"invalid literal for int\(\) with base 10: |could not convert string to float: )"
    r"(?P<found>[^\]]*)"
)
"""What tyro and Python say of a text that is no number."""
KINDS = {"INT": "a whole number", "INT [INT ...]": "whole numbers", "FLOAT": "a number"}
"""What a flag takes, as the help and as an error says it."""
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?")

WITHOUT_PREFIX = tyro.conf.arg(name="")
"""For a nested dataclass whose fields become options of the command itself."""


def parse(
    kind: type[Arguments],
    words: list[str],
    *,
    command: str,
    examples: str,
    default: Arguments | None = None,
    options: str = "",
) -> Arguments:
    """A `kind` from `words` over `default`; `kind`'s docstring heads the help. Several numbers, or
    choices, may have commas between them in place of spaces.

    What tyro refuses (an unknown or misspelt option, a text for a number) and what a dataclass's
    own checks refuse is a `UserError`, which names the command that shows every option: with
    `options`, where the command has several helps. Help is printed and ends with `SystemExit(0)`.
    """
    complaint = io.StringIO()
    base: Any = tyro.MISSING_NONPROP if default is None else default
    helps, rules = wants_help(words), None
    if helps:
        from mixerkit.cli.option_help import help_rules

        print(_wrapped(inspect.getdoc(kind) or "") + "\n")
        rules = help_rules()
    try:
        with contextlib.redirect_stderr(complaint), _unwrapped(not helps):
            plain = _without_commas(words, _lists(kind))
            given: Arguments = tyro.cli(
                kind,
                args=plain,
                prog=f"mixer {command}",
                description="",
                default=base,
                registry=rules,
            )
            return given
    except SystemExit as stop:
        if not stop.code:
            print(f"Examples:\n{examples.rstrip()}")
            raise
        message = _plain(complaint.getvalue())
        shows = " ".join(filter(None, (command, options, "--help")))
        more = f"\n`mixer {shows}` shows every option."
        raise _user_error_behind(stop) or UserError(message + more) from None


def _lists(kind: Any, prefix: str = "--") -> dict[str, set[str]]:
    """The flags of a dataclass that take several numbers or choices, those of nested ones too, and
    the choices of each. Texts may have commas of their own."""
    found: dict[str, set[str]] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        bare, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(bare):
            found |= _lists(bare, prefix if WITHOUT_PREFIX in marks else f"{prefix}{name}.")
            continue
        for one in (bare, *get_args(bare)):  # also of "a number or two"
            if get_origin(one) is tuple and str not in get_args(one):
                choices = {choice for item in get_args(one) for choice in get_args(item)}
                found[_dashed(prefix + name)] = choices
    return found


def _dashed(flag: str) -> str:
    """The flag as it is printed; underscores are taken too."""
    return flag.replace("_", "-")


def _without_commas(words: list[str], lists: dict[str, set[str]]) -> list[str]:
    """`words` with several for "1,5,10" after one of the flags `lists`."""
    found: list[str] = []
    choices: set[str] | None = None
    for word in words:
        flag, _, value = word.partition("=")
        if word.startswith("--"):
            choices = lists.get(_dashed(flag))
            several = _several(value, choices)
            found += [flag, *several] if several else [word]
        else:
            found += _several(word, choices) or [word]
    return found


def _several(text: str, choices: set[str] | None) -> list[str]:
    """What stands between the commas of a text: numbers, or some of `choices`. Nothing where it is
    anything else, such as a file's name."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    fits = choices is not None and all(part in choices or NUMBER.fullmatch(part) for part in parts)
    return parts if fits and "," in text else []


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
    lines = _expected(lines)
    ends = [i for i, line in enumerate(lines) if line.startswith("For full helptext")]
    joined = "\n  ".join(lines[: ends[0] if ends else None]).replace("\n  (", " (")
    return re.sub(r"one of \(('[^()]*),?\)", _without_quotes, joined)


def _expected(lines: list[str]) -> list[str]:
    """What a flag takes and what was found, in the place of what the parser says of a text that is
    no number."""
    match = NO_NUMBER.match("".join(lines[:1]))
    if match is None or "Argument helptext:" not in lines:
        return lines
    usage = lines.index("Argument helptext:")
    shown = "".join(lines[usage + 1 : usage + 2]).partition(" ")[2]
    takes = f"{match['flag']} takes {KINDS.get(shown, shown)}, found {match['found']}."
    return [takes, *lines[usage:]]


def _without_quotes(choices: re.Match[str]) -> str:
    """Choices as people list them, where tyro prints a tuple of Python's."""
    return "one of " + choices[1].rstrip(",").replace("'", "")


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
