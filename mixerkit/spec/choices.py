"""Checks that every configuration makes: named choices, finite numbers and whole ones."""

import math
from collections.abc import Collection, Iterable
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixerkit.errors import UserError, did_you_mean


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
    """`words` with the parts of "a,b" in the place of a word that is none of the `known` names, and
    consists of such with commas between them. Names may have commas of their own."""
    found: list[str] = []
    for word in words:
        parts = [part.strip() for part in word.split(",") if part.strip()]
        is_list = word not in known and parts and all(part in known for part in parts)
        found += parts if is_list else [word]
    return tuple(found)
