"""The classes of ImageNet-1k: what label 281 means, and which WordNet number it has."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_names() -> dict[str, str]:
    """WordNet number → name, in the order of the labels: "n02123045" → "tabby".

    Names are unique: two cranes and two maillots say which.
    """
    lines = FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if not line.startswith("#"))
    return {number: name for number, _, name in pairs}


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names by label."""
    return tuple(imagenet_names().values())


def readable(classes: Sequence[str]) -> tuple[str, ...]:
    """`classes` with names in place of ImageNet-1k's WordNet numbers; others stay as they are."""
    names = imagenet_names()
    return tuple(names.get(name, name) for name in classes)
