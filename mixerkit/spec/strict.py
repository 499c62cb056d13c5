"""Dataclasses from YAML or JSON and back, strictly: what is not understood is an error.

A mapping may name a base to change: `model: B/16` or `model: {variant: B/16, depth: 2}`, and
`extends: fashion-demo` at the top of a recipe.
"""

import dataclasses
import math
import reprlib
import types
import typing
from collections import Counter
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from mixerkit.errors import UserError, did_you_mean

Record = TypeVar("Record")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: Any) -> str:
    """`value` as errors print it: cut short, however large it is."""
    return _short.repr(value)


MOST_BRACKETS = 32
"""Lists in lists; the reader's time grows with their square."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: the first would be lost in silence."""

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level >= MOST_BRACKETS:
            raise yaml.MarkedYAMLError(
                problem="too many brackets in brackets", problem_mark=self.get_mark()
            )
        super().fetch_flow_collection_start(kind)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        times = Counter(key.value for key in keys)
        for key in keys:
            if times[key.value] > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' is given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


YAML_LIMIT = 64 * 2**10
"""Bytes; a recipe takes about two thousand, and YAML takes long to read."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a syntax error is reported with its line."""
    try:
        size = path.stat().st_size
        if size > YAML_LIMIT:
            raise UserError(
                f"{path} has {size:,} bytes; settings in YAML have at most {YAML_LIMIT:,}."
            )
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise UserError(f"{path}{where}: {problem}.") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # 2024-13-45; thousands of brackets
        raise UserError(f"{path} is not valid YAML: {shown(str(error))}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings as 'key: value' lines, found {shown(content)}.")
    return content


def write_yaml(record: Any) -> str:
    """The YAML text of a dataclass, in the order of its fields."""
    return yaml.safe_dump(to_dict(record), sort_keys=False, allow_unicode=True, width=100)


def to_dict(record: Any) -> Any:
    """A dataclass as plain mappings, lists, texts and numbers (JSON and YAML both take it)."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, tuple | list):
        return [to_dict(item) for item in record]
    return record


def from_dict(
    kind: type[Record], values: Any, where: str = "", base: Record | None = None
) -> Record:
    """A `kind` with `values` over `base` (or over the defaults), nested dataclasses too.

    `where` is the path of keys shown in errors. Unknown keys and values of the wrong type
    raise `UserError` with the nearest valid name.
    """
    if not isinstance(values, dict):
        raise UserError(
            f"{where or 'The file'} must be a mapping of settings, found {shown(values)}."
        )
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in names:
            raise UserError(
                f"Unknown setting '{path}'.{did_you_mean(str(key), names)} "
                f"Known{' in ' + where if where else ''}: {', '.join(names)}."
            )
        given[key] = _convert(hints[key], value, path, getattr(base, key, None))
    if base is not None:
        return dataclasses.replace(base, **given)  # type: ignore[type-var]
    return kind(**given)


def _convert(hint: Any, value: Any, path: str, base: Any) -> Any:
    """`value` as the type `hint`; ints stand for floats, lists for tuples, nothing else."""
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        from mixerkit.spec.mixer import MixerConfig

        if hint is MixerConfig:
            if isinstance(value, str):
                value = {"variant": value}
            if isinstance(value, dict) and "variant" in value:
                base = _variant_for(str(value["variant"]), base)
                value = {key: item for key, item in value.items() if key != "variant"}
        return from_dict(typing.cast(type, hint), value, path, base)
    if origin is Literal:
        if value is False and "off" in get_args(hint):
            return "off"  # YAML 1.1 reads a bare off as false, on as true
        if value is True and "on" in get_args(hint):
            return "on"
        if value in get_args(hint) and type(value) is str:
            return value
        near = did_you_mean(value, get_args(hint)) if isinstance(value, str) else ""
        raise UserError(
            f"{path} must be one of {', '.join(get_args(hint))}, found {shown(value)}.{near}"
        )
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, path)
    if origin is tuple:
        return _convert_tuple(hint, value, path)
    if hint is float:
        return _convert_number(value, path)
    if type(value) is hint:
        return value
    raise UserError(f"{path} must be {_name(hint)}, found {shown(value)}.")


def _variant_for(label: str, base: Any) -> Any:
    """The variant `label` for the images and classes of the model that it replaces, if any."""
    from mixerkit.spec.mixer import variant

    kept = ("image_size", "in_channels", "num_classes") if base else ()
    return variant(label, **{name: getattr(base, name) for name in kept})


def _convert_number(value: Any, path: str) -> float:
    """A finite float; texts too, because YAML 1.1 reads 1e-3 as one."""
    if type(value) in (int, float, str):
        try:
            if math.isfinite(number := float(value)):
                return number
        except (ValueError, OverflowError):
            pass
    raise UserError(f"{path} must be a number, found {shown(value)}.")


def _convert_union(hint: Any, value: Any, path: str) -> Any:
    for option in get_args(hint):
        try:
            return _convert(option, value, path, None)
        except UserError:
            continue
    options = " or ".join(_name(one) for one in get_args(hint) if one is not types.NoneType)
    raise UserError(f"{path} must be {options}, found {shown(value)}.")


def _convert_tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    many = len(kinds) == 2 and kinds[1] is Ellipsis
    if not isinstance(value, list | tuple) or not (many or len(value) == len(kinds)):
        raise UserError(f"{path} must be {_name(hint)}, found {shown(value)}.")
    wanted = [kinds[0]] * len(value) if many else kinds
    return tuple(
        _convert(kind, item, f"{path}[{i}]", None)
        for i, (kind, item) in enumerate(zip(wanted, value, strict=True))
    )


def _name(hint: Any) -> str:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return f"a list ({_name(kinds[0])} each)"
        return f"a list of {len(kinds)} ({_name(kinds[0])} each)"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        hint, str(hint)
    )
