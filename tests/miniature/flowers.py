"""Flowers-102: photographs by number, their labels and splits in .mat files."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from mixerkit.data.flowers import CLASS_NAMES
from tests.miniature.amount import Amount
from tests.miniature.pictures import write_photographs


def write_flowers102(folder: Path, amount: Amount) -> None:
    """Images are numbered by class, as the authors' are, and their splits cross the classes."""
    train, test = amount.splits(len(CLASS_NAMES))
    parts = (train, test, test)  # validation as testing
    order = np.argsort(np.concatenate(parts), kind="stable")
    labels = np.concatenate(parts)[order]
    numbers = np.arange(1, len(labels) + 1)
    paths = [folder / "jpg" / f"image_{number:05}.jpg" for number in numbers]
    write_photographs(paths, labels, amount.side, amount.seed)
    savemat(folder / "imagelabels.mat", {"labels": (labels[None] + 1).astype(np.uint8)})
    part_of = np.repeat(np.arange(3), [len(part) for part in parts])[order]
    names = ("trnid", "valid", "tstid")
    sets = {name: numbers[None, part_of == part] for part, name in enumerate(names)}
    savemat(folder / "setid.mat", {name: ids.astype(np.uint16) for name, ids in sets.items()})
