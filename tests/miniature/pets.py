"""Oxford-IIIT Pets: photographs named by breed, and lists of them."""

from pathlib import Path

import numpy as np

from tests.miniature.amount import Amount
from tests.miniature.pictures import write_photographs

BREEDS = [
    "Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle",
    "Bengal", "Birman", "Bombay", "boxer", "British_Shorthair", "chihuahua", "Egyptian_Mau",
    "english_cocker_spaniel", "english_setter", "german_shorthaired", "great_pyrenees", "havanese",
    "japanese_chin", "keeshond", "leonberger", "Maine_Coon", "miniature_pinscher", "newfoundland",
    "Persian", "pomeranian", "pug", "Ragdoll", "Russian_Blue", "saint_bernard", "samoyed",
    "scottish_terrier", "shiba_inu", "Siamese", "Sphynx", "staffordshire_bull_terrier",
    "wheaten_terrier", "yorkshire_terrier",
]  # fmt: skip
"""In the order of the classes 1 to 37; those of cats begin with a capital letter."""
HEAD = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\n"


def write_pets(folder: Path, amount: Amount) -> None:
    """The lists are in the order of the names, and numbers are given to both splits in turn."""
    lists: list[list[str]] = []
    for split, labels in enumerate(map(np.sort, amount.splits(len(BREEDS)))):
        images = [f"{BREEDS[label]}_{2 * i + split}" for i, label in enumerate(labels, 1)]
        paths = [folder / "images" / f"{image}.jpg" for image in images]
        write_photographs(paths, labels, amount.side, amount.seed, split)
        lists.append([_line(image, label) for image, label in zip(images, labels, strict=True)])
    (folder / "annotations").mkdir()
    every = [HEAD, *sorted(lists[0] + lists[1], key=str.casefold)]
    for name, lines in zip(("trainval", "test", "list"), (*lists, every), strict=True):
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))


def _line(image: str, label: int) -> str:
    """NAME CLASS SPECIES BREED; breeds are numbered among the cats and among the dogs."""
    is_cat = BREEDS[label][0].isupper()
    own = [breed for breed in BREEDS if breed[0].isupper() == is_cat]
    return f"{image} {label + 1} {1 if is_cat else 2} {own.index(BREEDS[label]) + 1}\n"
