"""Whether a model knows the classes of the images, and their labels in its numbers."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixerkit import launch
from mixerkit.cli.text import plural
from mixerkit.errors import UserError, nearest
from mixerkit.spec.choices import as_words
from mixerkit.spec.imagenet import readable

if TYPE_CHECKING:
    from mixerkit.data.sources import ImageSplit
    from mixerkit.spec.preprocess import Preprocess

NAMED = 5
"""Classes that an error names at most."""


def as_the_model_knows(
    preprocess: "Preprocess", split: "ImageSplit", chosen: bool = False
) -> "ImageSplit":
    """The split with the model's classes, and labels that are their numbers: matched by name, so
    that their order makes no difference. `UserError` where the classes are others; `chosen` ones
    may be some of the model's."""
    import numpy as np

    known, found = readable(preprocess.class_names), _as_named(preprocess, split)
    if known == found:
        return replace(split, class_names=preprocess.class_names)
    unknown = [name for name in found if name not in known]
    missing = [name for name in known if name not in found]
    if unknown or (missing and not chosen) or len(set(known)) < len(known):
        raise UserError(_difference(known, found, split))
    if not missing:
        _note(f"the classes of {split.name} are in another order, and are matched by name")
    numbers = np.array([known.index(name) for name in found], np.int64)
    return replace(split, class_names=preprocess.class_names, labels=numbers[split.labels])


def _as_named(preprocess: "Preprocess", split: "ImageSplit") -> tuple[str, ...]:
    """The classes of the images as the model calls them. No folder's name has a /, in the place of
    which it may have a -."""
    known, found = readable(preprocess.class_names), readable(split.class_names)
    of_folders = {name.replace("/", "-"): name for name in known if "/" in name}
    meant = {name: of_folders[name] for name in found if name in of_folders and name not in known}
    if meant:
        pairs = [f"{folder} for {name}" for folder, name in meant.items()]
        _note(f"folders cannot have a / in their names: {_first(pairs)}")
    return tuple(meant.get(name, name) for name in found)


def _difference(known: tuple[str, ...], found: tuple[str, ...], split: "ImageSplit") -> str:
    """How the sets differ, and what to do; `found` are the split's classes as the model calls
    them."""
    names = list(zip(split.class_names, found, strict=True))
    unknown = {own: name for own, name in names if name not in known}
    missing = [name for name in known if name not in found]
    said = []
    if unknown:
        said.append(f"Unknown to the model: {_first(_with_near(split, unknown, missing))}.")
    if missing:
        said.append(f"Missing in the data: {_first(missing)}.")
    if not said:
        said.append("Several of the model's classes have one name, by which none can be told.")
    common = [own for own, name in names if name in known]
    return (
        f"The model knows {plural(len(known), 'class')} and {split.name} has "
        f"{plural(len(split.class_names), 'class')}, which must be the same, in any order. "
        f"{' '.join(said)} Images of any classes: --protocol fewshot "
        f"(not of an exported model)."
        f"{_of_both(common) if unknown or missing else ''}"
    )


def _with_near(split: "ImageSplit", unknown: dict[str, str], missing: list[str]) -> list[str]:
    """The `unknown` classes, each with the missing one that it may be meant for."""
    found, left = [], list(missing)
    for own, name in unknown.items():
        near = nearest(name, left)
        if near:
            left.remove(near)
        found.append(f"{name}{near and f' ({_meant(split, own, near)})'}")
    return found


def _meant(split: "ImageSplit", own: str, near: str) -> str:
    """What to do where the class `near` is meant by `own`."""
    places = (split.labels == split.class_names.index(own)).nonzero()[0]
    path = split.paths[places[0]] if split.images is None and len(places) else None
    if isinstance(path, Path) and own in path.parts:
        return f"if {near} is meant, rename the folder to {near.replace('/', '-')}"
    return f"did you mean '{near}'?"


def _of_both(common: list[str]) -> str:
    """How to measure the classes that both have, as a line to copy unless it is too long."""
    if not common:
        return ""
    if words := as_words(common):
        return f" To measure those that both have:\n  --data.classes {words}"
    return f" --data.classes with the {len(common):,} that both have measures them alone."


def _note(text: str) -> None:
    if launch.rank() == 0:
        print(f"note: {text}.", file=sys.stderr)


def _first(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
