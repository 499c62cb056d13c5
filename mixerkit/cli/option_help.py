"""The help of options as it is read: paragraphs that tyro wraps once, to the terminal, and values
as they are typed. Imported only where a help is printed."""

import inspect
from dataclasses import is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)


def help_rules() -> ConstructorRegistry:
    """For `tyro.cli`: its own rules for dataclasses, nested ones too, with other texts."""
    rules = ConstructorRegistry()
    inside = False

    @rules.struct_rule
    def told_better(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not is_dataclass(info.type):
            return None
        inside = True  # so that tyro's own rule answers
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(found, StructConstructorSpec):
            return None
        return replace(found, fields=tuple(_told_better(field) for field in found.fields))

    return rules


def _told_better(field: StructFieldSpec) -> StructFieldSpec:
    """An option's field, or that of a group of options."""
    bare, *marks = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
    text = field.helptext() if callable(field.helptext) else field.helptext
    if is_dataclass(bare):
        text = text or _docstring(bare)
    hint = "" if field.default in (None, "", ()) else None  # nothing worth a word
    shown = tyro.conf.arg(metavar=_alternatives(bare), help_behavior_hint=hint)
    # first, so that a command's own mark has the last word
    kind: Any = Annotated[(bare, shown, *marks)]
    return replace(field, type=kind, helptext=None if text is None else _joined(text))


def _docstring(kind: Any) -> str:
    """What a dataclass says of itself; Python writes its signature there if that is nothing."""
    text = inspect.getdoc(kind) or ""
    return "" if text.startswith(f"{kind.__name__}(") else text


def _alternatives(kind: Any) -> str | None:
    """How a union is shown, such as "INT | INT INT" for one number or two; None for other kinds.
    That nothing need be given is no value to type."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    kinds = [one for one in get_args(kind) if one is not NoneType]
    infos = [PrimitiveTypeInfo.make(one, set()) for one in kinds]
    specs = map(ConstructorRegistry.get_primitive_spec, infos)
    return " | ".join(one.metavar for one in specs if isinstance(one, PrimitiveConstructorSpec))


def _joined(text: str) -> str:
    """`text` with a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
