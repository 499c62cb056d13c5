"""Which option of `mixer evaluate` belongs to which protocol."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mixerkit.errors import UserError

TOP_1 = "top1"
ARGUMENTS = {
    TOP_1: ("evaluate", "Evaluate"),
    "fewshot": ("fewshot", "EvaluateFewShot"),
    "avg5": ("avg5", "Avg5"),
    "robustness": ("robustness", "EvaluateRobustness"),
}
"""Protocol → the module of this package and the dataclass of its options."""


def options(protocol: str) -> set[str]:
    """Every option of a protocol, as it is printed."""
    module, name = ARGUMENTS[protocol]
    return _options(getattr(import_module(f"mixerkit.cli.{module}"), name))


def _options(kind: Any, prefix: str = "--") -> set[str]:
    hints = get_type_hints(kind, include_extras=True)
    found = set()
    for field in fields(kind):
        hint = hints[field.name]
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        name = f"{prefix}{field.name.replace('_', '-')}"
        found |= _options(bare, f"{name}.") if is_dataclass(bare) else {name}
    return found


@contextmanager
def named_as_options(protocol: str) -> Iterator[None]:
    """Errors call settings of images as they are written on the command line: --data.split-seed for
    data.split_seed, or --root for data.root where a protocol has it so."""
    own = options(protocol)

    def written(found: re.Match[str]) -> str:
        option = f"--{found[0].replace('_', '-')}"
        ways = (option, option.replace("--data.", "--"))
        return next((way for way in ways if way in own), found[0])

    try:
        yield
    except UserError as error:
        error.args = (re.sub(r"(?<![\w./-])data\.\w+", written, str(error)),)
        raise


@contextmanager
def beginning_with(**written: str) -> Iterator[None]:
    """Errors that begin with the name of a setting begin with what is written for it instead, such
    as shots="--shots"."""
    try:
        yield
    except UserError as error:
        name, _, rest = str(error).partition(" ")
        error.args = (f"{written.get(name, name)} {rest}",)
        raise


def refuse_others(words: list[str], protocol: str) -> None:
    """`UserError` for the first option that belongs to other protocols alone. What none of them
    knows is left to whoever reads the words."""
    given = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    own = options(protocol)
    for option in given:
        others = [] if option in own else [one for one in ARGUMENTS if option in options(one)]
        if others:
            raise UserError(_belongs(option, others, protocol, own))


def _belongs(option: str, others: list[str], protocol: str, own: set[str]) -> str:
    alike = {f"--data.{option.removeprefix('--')}", f"--{option.removeprefix('--data.')}"} & own
    instead = f"give {alike.pop()} instead" if alike else f"leave {option} out"
    this = f"{protocol}, which is measured without --protocol" if protocol == TOP_1 else protocol
    *first, last = others
    named = f"{', '.join(first)} and {last}" if first else last
    shows = "" if others[0] == TOP_1 else f" --protocol {others[0]}"
    return (
        f"{option} belongs to --protocol {named}, and this is {this}: {instead}, or give that "
        f"protocol. `mixer evaluate{shows} --help` shows its options."
    )
