"""ImageNet with its devkit, and ReaL's labels beside it."""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from mixerkit.data.imagenet import DEVKIT, TRUTH
from mixerkit.data.real import FILE, IMAGES
from mixerkit.spec.imagenet import imagenet_names
from tests.miniature.amount import Amount
from tests.miniature.pictures import write_photographs


def write_imagenet(folder: Path, amount: Amount, flat: bool = True) -> None:
    """`train/`, `val/` (as it is distributed, or in class folders), the devkit and `real.json`."""
    numbers = class_numbers(amount)
    wnids = [list(imagenet_names())[number] for number in numbers]
    train, val = amount.splits(len(wnids))
    names = [wnids[label] for label in train]
    paths = [folder / "train" / name / f"{name}_{i}.JPEG" for i, name in enumerate(names)]
    write_photographs(paths, train, amount.side, amount.seed, 0)
    folders = [folder / "val" / ("" if flat else wnids[label]) for label in val]
    paths = [place / f"ILSVRC2012_val_{i:08}.JPEG" for i, place in enumerate(folders, 1)]
    write_photographs(paths, val, amount.side, amount.seed, 1)
    _write_devkit(folder / DEVKIT, wnids, val)
    _write_real(folder / FILE, numbers, val)


def class_numbers(amount: Amount) -> list[int]:
    """ImageNet-1k's numbers of the classes that are made, spread evenly, in their order."""
    count = len(imagenet_names())
    classes = min(amount.classes, count)
    return [label * count // classes for label in range(classes)]


def _write_devkit(data: Path, wnids: list[str], val: np.ndarray) -> None:
    """The devkit numbers classes in an order of its own, from 1, and groups of classes after
    them."""
    data.mkdir(parents=True)
    count, nothing = len(wnids), np.zeros(0, np.uint16)
    rows = [
        (count - label, wnid, f"{imagenet_names()[wnid]}, {wnid}", "…", 0, nothing, 0, 1300)
        for label, wnid in enumerate(wnids)
    ]
    children = np.arange(1, count + 1, dtype=np.uint16)
    rows.append((count + 1, "n00001740", "entity", "…", count, children, 1, 0))
    columns = (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
        "num_train_images",
    )  # fmt: skip
    table = np.empty(len(rows), [(name, "O") for name in columns])
    for place, row in enumerate(sorted(rows, key=lambda row: row[0])):
        table[place] = row
    savemat(data / "meta.mat", {"synsets": table[:, None]})
    (data / TRUTH).write_text("".join(f"{count - label}\n" for label in val))


def _write_real(file: Path, numbers: list[int], val: np.ndarray) -> None:
    """Of ten images one has no label, one a second label, and one another in place of its own."""
    sets: list[list[int]] = [[] for _ in range(IMAGES)]
    for place, label in enumerate(val.tolist()):
        own, other = numbers[label], numbers[(label + 1) % len(numbers)]
        sets[place] = {3: [], 6: sorted([own, other]), 9: [other]}.get(place % 10, [own])
    file.write_text(json.dumps(sets))
