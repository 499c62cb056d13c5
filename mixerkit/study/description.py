"""A study as its study.json describes it, and what two such descriptions differ in."""

from collections.abc import Iterator
from typing import Any

from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, shown, to_dict
from mixerkit.study.grid import Configuration

MOST_NAMED = 4
"""Differences that a sentence names."""
Described = dict[str, Any]


def described(one: Configuration) -> Described:
    """A configuration in JSON."""
    order = {"order": one.order} if one.order else {}
    return {"levels": one.levels, "peer": one.peer, **order, "recipe": to_dict(one.recipe)}


def understood(study: Described) -> Described:
    """What a description means: settings that it leaves out, because an older version wrote it, are
    at their defaults."""
    try:
        configurations = {
            name: one | {"recipe": from_dict(Recipe, one["recipe"])}
            for name, one in study["configurations"].items()
        }
    except (UserError, LookupError, TypeError, AttributeError):
        return study
    return study | {"configurations": configurations}


def goes_with(one: Described, other: Described) -> bool:
    """Whether trials of both can be in one folder: under the same name, from the same weights, and
    with the same meaning of every configuration that both have."""
    rest = [{key: part[key] for key in part if key != "configurations"} for part in (one, other)]
    ours, theirs = one.get("configurations"), other.get("configurations")
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return False
    return rest[0] == rest[1] and all(ours[name] == theirs[name] for name in ours if name in theirs)


def difference(there: Described, now: Described) -> str:
    """The first few settings that differ, with both values."""
    if there.get("name") != now.get("name"):
        return f"it is '{there.get('name')}' there and '{now.get('name')}' now"
    known, asked = there.get("configurations", {}), now.get("configurations", {})
    if not isinstance(known, dict):
        return "it cannot be understood"
    common = [name for name in asked if name in known]
    pairs = (pair for name in common for pair in _pairs("", known[name], asked[name]))
    found = list(dict.fromkeys(f"{path} is {a} there and {b} now" for path, a, b in pairs))
    if found:
        return "; ".join(found[:MOST_NAMED]) + ("; …" if len(found) > MOST_NAMED else "")
    said = []
    for what, names in (
        ("only there", [name for name in known if name not in asked]),
        ("only now", [name for name in asked if name not in known]),
    ):
        if names:
            said.append(f"{what}: {' '.join(names[:MOST_NAMED])}{' …' * (len(names) > MOST_NAMED)}")
    return "; ".join(said)


def _pairs(path: str, there: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    """(setting, its value there, its value now) for each that differs."""
    there, now = to_dict(there), to_dict(now)
    if not (isinstance(there, dict) and isinstance(now, dict)):
        if there != now:
            yield path.removeprefix("recipe."), _text(there), _text(now)
        return
    for key in dict.fromkeys([*there, *now]):
        yield from _pairs(f"{path}.{key}" if path else str(key), there.get(key), now.get(key))


def _text(value: Any) -> str:
    """As a person writes it."""
    if value is None or value in ("", [], ()):
        return "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return shown(value) if isinstance(value, str) else str(value)
