"""Checks that every configuration makes: named choices, finite numbers and whole ones."""

import math
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixerkit.errors import UserError, did_you_mean

LONGEST_WORDS = 800


def check_choices(record: Any, where: str = "") -> None:
    """Refuse a value that its field's `Literal` type does not list, naming the nearest, and any
    number that is NaN or infinite. `where` stands before the field's name, such as "data."."""
    for name, choices in named_choices(type(record)).items():  # type: ignore[arg-type]
        value = getattr(record, name)
        if value not in choices:
            raise UserError(
                f"{where}{name} must be one of {', '.join(choices)}, found {value!r}."
                f"{did_you_mean(str(value), choices)}"
            )
    for field in fields(record):
        value = getattr(record, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{where}{field.name} must be a finite number, found {number!r}.")


@cache
def named_choices(kind: type) -> dict[str, tuple[str, ...]]:
    """The fields of a dataclass whose type is a `Literal`, and what each may be."""
    hints = get_type_hints(kind)
    return {
        field.name: get_args(hints[field.name])
        for field in fields(kind)
        if get_origin(hints[field.name]) is Literal
    }


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse anything but a whole number of at least `least`."""
    if type(value) is not int or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, found {value!r}.")


def separated(words: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """`words` with the parts of "a,b" in the place of a word that is none of the `known` names.

    Names may have commas of their own: where any has, a word whose parts are all unknown stays.
    """
    found: list[str] = []
    have_commas = any("," in name for name in known)
    for word in words:
        parts = [part.strip() for part in word.split(",") if part.strip()]
        names_any = any(part in known for part in parts) or not have_commas
        found += parts if parts and word not in known and names_any else [word]
    return tuple(found)


def classes_named(words: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The classes that `words` name, `separated`, each as it is `known`: no folder's name has a /,
    so that - stands for it, and the other way round. What names none stays."""
    with_dashes = {name.replace("/", "-"): name for name in known}
    return tuple(
        name if name in known else with_dashes.get(name.replace("/", "-"), name)
        for name in separated(words, {*known, *with_dashes})
    )


def as_words(names: Sequence[str]) -> str:
    """Names as a shell takes them; empty where there are none, or more than a line of an error
    holds."""
    line = shlex.join(names)
    return line if len(line) <= LONGEST_WORDS else ""
