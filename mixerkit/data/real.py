"""ImageNet-ReaL: several right labels, or none, for each of ImageNet's validation images.

Beyer et al. 2020, "Are we done with ImageNet?" (arXiv 2006.07159). Their file `real.json` is a
list of 50,000 lists of class numbers, in the order of the images' file names; a class number is the
place of the class among the sorted WordNet numbers.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.data.files import Place
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_classes, readable

FILE = "real.json"
IMAGES = 50_000
OBTAIN = "github.com/google-research/reassessed-imagenet"
AGREEMENT = 0.5
"""Share of the labelled images whose set must hold ImageNet's own label, or the two do not belong
together: about 0.9 of the published sets do, and 0.001 in another order of images or classes."""


def real_file(split: ImageSplit) -> Path:
    """Where `real.json` is expected for ImageNet's test split: beside `val/`."""
    first = split.paths[0] if len(split) and split.images is None else None
    if not isinstance(first, Path):
        raise _no_numbers(split)
    val = next((folder for folder in first.parents if folder.name == "val"), first.parent)
    return val.parent / FILE


def real_labels(split: ImageSplit, file: Path) -> tuple[frozenset[int], ...]:
    """The right labels of each image of ImageNet's test split, as indices into its `class_names`.

    An image is known by the number in its name (ILSVRC2012_val_00000001.JPEG), so that it makes no
    difference whether `val/` has class folders. The split may have some of ImageNet-1k's classes
    only; labels of others are dropped. An empty set: no label fits, the image does not count.
    `UserError`: the file is not there or not `real.json`, it does not belong to the split, or none
    of the split's images has a label.
    """
    sets = _read(file)
    index_of = _index_of(split)
    numbers = [_number(split, place) for place in _places(split)]
    found = tuple(
        frozenset(index_of[label] for label in sets[number - 1] if label in index_of)
        for number in numbers
    )
    _check_agreement(file, split, found)
    return found


def _read(file: Path) -> list[list[int]]:
    """The sets of the file in its own order, with its own class numbers."""
    if not file.is_file():
        raise UserError(
            f"ImageNet-ReaL needs the file {file}, which is not there: put {FILE} from {OBTAIN} "
            f"in that place."
        )
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise _not_real(file, f"it is not JSON ({error})") from error
    if not isinstance(content, list) or len(content) != IMAGES:
        found = f"a list of {len(content):,}" if isinstance(content, list) else _kind(content)
        raise _not_real(file, f"found {found}")
    for number, labels in enumerate(content, 1):
        _check_labels(file, number, labels)
    return content


def _check_labels(file: Path, number: int, labels: Any) -> None:
    """`UserError` unless `labels`, those of image `number`, are a list of class numbers."""
    if not isinstance(labels, list):
        raise _not_real(file, f"image {number:,} has {_kind(labels)} in place of a list")
    for label in labels:
        if type(label) is not int:  # true and false would pass as whole numbers
            raise _not_real(file, f"image {number:,} has {_kind(label)} in place of a class number")
        if not 0 <= label < len(imagenet_classes()):
            raise _not_real(file, f"image {number:,} has the class number {label}")


def _kind(value: Any) -> str:
    """What a JSON value is, for people."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), f"the number {value}")


def _not_real(file: Path, found: str) -> UserError:
    return UserError(
        f"{file} must be a JSON list of {IMAGES:,} lists of class numbers from 0 to "
        f"{len(imagenet_classes()) - 1}, but {found}. Take {FILE} from {OBTAIN} again."
    )


def _index_of(split: ImageSplit) -> dict[int, int]:
    """Class number in ImageNet-1k → index into the split's class names."""
    number_of = {name: number for number, name in enumerate(imagenet_classes())}
    names = readable(split.class_names)
    others = [name for name in names if name not in number_of]
    if others:
        raise UserError(
            f"ImageNet-ReaL has labels for the classes of ImageNet-1k, and {split.name} has "
            f"others: {', '.join(others[:5])}{', …' if len(others) > 5 else ''}."
        )
    return {number_of[name]: index for index, name in enumerate(names)}


def _places(split: ImageSplit) -> Sequence[Place]:
    if split.images is not None:
        raise _no_numbers(split)
    return split.paths


def _number(split: ImageSplit, place: Place) -> int:
    """The number in the image's name, from 1."""
    found = re.match(r".*ILSVRC2012_val_(\d{8})", str(place), re.DOTALL)
    if not found or not 1 <= int(found[1]) <= IMAGES:
        raise _no_numbers(split, f", found {place}")
    return int(found[1])


def _no_numbers(split: ImageSplit, found: str = "") -> UserError:
    return UserError(
        f"ImageNet-ReaL knows images by their names, ILSVRC2012_val_00000001.JPEG to "
        f"ILSVRC2012_val_{IMAGES:08}.JPEG, and those of {split.name} are others{found}. Give "
        f"ImageNet's validation images under the names that they came with."
    )


def _check_agreement(file: Path, split: ImageSplit, sets: Sequence[frozenset[int]]) -> None:
    labelled = [label in own for label, own in zip(split.labels.tolist(), sets, strict=True) if own]
    if not labelled:
        raise UserError(
            f"{file} has no label for any of the {len(split):,} images of {split.name}, so that "
            f"there is nothing to count: take more images, or measure top-1 alone."
        )
    if np.mean(labelled) < AGREEMENT:
        raise UserError(
            f"{file} holds ImageNet's own label for only {sum(labelled):,} of {len(labelled):,} "
            f"images of {split.name}: images or classes are in another order there, or the labels "
            f"of {split.name} are wrong. Take {FILE} from {OBTAIN} again, and see that the images "
            f"have the names and the class folders that they came with."
        )
