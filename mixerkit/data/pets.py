"""Oxford-IIIT Pets (Parkhi et al. 2012): 37 breeds, by the lists in `annotations/`."""

from pathlib import Path

import numpy as np

from mixerkit.data.lists import read_lines
from mixerkit.data.splits import ImageSplit, Splits, check_files
from mixerkit.errors import UserError


def open_pets(folder: Path) -> Splits:
    """Training split (the authors' trainval) and test split."""
    train = _read_list(folder / "annotations" / "trainval.txt")
    test = _read_list(folder / "annotations" / "test.txt")
    names = _class_names(folder, train + test)
    splits = [
        ImageSplit(
            f"pets {name}",
            names,
            np.array([label for _, label in items], np.int64),
            None,
            tuple(folder / "images" / f"{image}.jpg" for image, _ in items),
        )
        for name, items in (("train", train), ("test", test))
    ]
    return check_files(Splits(splits[0], None, splits[1], f"pets: {folder}"))


def _read_list(path: Path) -> list[tuple[str, int]]:
    """(image name, label from 0) for each line `NAME CLASS SPECIES BREED`; # is a comment."""
    items = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 4 or not words[1].isdecimal() or int(words[1]) < 1:
            raise UserError(f"{path}, line {number}: expected 'NAME CLASS SPECIES BREED'.")
        items.append((words[0], int(words[1]) - 1))
    if not items:
        raise UserError(f"{path} lists no image.")
    return items


def _class_names(folder: Path, items: list[tuple[str, int]]) -> tuple[str, ...]:
    """The breeds, from the image names `american_bulldog_12`; one name for each label."""
    names: dict[int, str] = {}
    for image, label in items:
        breed = image.rpartition("_")[0]
        if names.setdefault(label, breed) != breed:
            raise UserError(
                f"{folder / 'annotations'}: class {label + 1} is both '{names[label]}' and "
                f"'{breed}'."
            )
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{folder / 'annotations'}: the classes are not numbered without gaps.")
    return tuple(names[label].replace("_", " ") for label in sorted(names))
