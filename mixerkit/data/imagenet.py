"""ImageNet (ILSVRC 2012): folders by WordNet number, and the devkit when `val/` is flat."""

from pathlib import Path

import numpy as np

from mixerkit.data.folder import LeftOut, open_classes
from mixerkit.data.matlab import read_mat
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError

DEVKIT = Path("ILSVRC2012_devkit_t12") / "data"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def open_imagenet(folder: Path) -> Splits:
    """Training split from `train/<wnid>/`; the 50 000 validation images are the test split.

    That is how the paper uses them (choices are made on a share of the training images: set
    data.holdout). Classes are in the order of the WordNet numbers; with the devkit they carry
    their English names.
    """
    left_out = LeftOut()
    train = open_classes(folder / "train", "imagenet train", left_out)
    words = _devkit_words(folder) if (folder / DEVKIT / "meta.mat").is_file() else {}
    if any(path.is_dir() for path in (folder / "val").iterdir()):
        test = open_classes(folder / "val", "imagenet val", left_out)
    else:
        test = _flat_validation(folder, train.class_names, left_out)
    if test.class_names != train.class_names:
        raise UserError(
            f"{folder}: train/ has {len(train.class_names)} classes and val/ "
            f"{len(test.class_names)}: they must be the same folders."
        )
    names = _readable(train.class_names, words)
    train, test = (
        ImageSplit(split.name, names, split.labels, None, split.paths) for split in (train, test)
    )
    return Splits(train, None, test, f"imagenet: {folder}{left_out.note()}")


def _flat_validation(folder: Path, wnids: tuple[str, ...], left_out: LeftOut) -> ImageSplit:
    """`val/` as it is distributed: the labels are the devkit's, in the order of the files."""
    truth = folder / DEVKIT / TRUTH
    if not truth.is_file():
        raise UserError(
            f"{folder / 'val'} has no sub-folders, so {truth} and meta.mat beside it are needed."
        )
    by_number = _devkit_numbers(folder)
    paths = []
    for path in sorted((folder / "val").iterdir()):
        if path.suffix == ".JPEG":
            paths.append(path)
        elif not path.name.startswith("."):
            left_out.add(path)
    numbers = [int(line) for line in truth.read_text(encoding="utf-8").split()]
    if len(paths) != len(numbers):
        raise UserError(f"{folder / 'val'} has {len(paths)} images, {truth} {len(numbers)} lines.")
    unknown = sorted({by_number.get(n, str(n)) for n in numbers} - set(wnids))
    if unknown:
        raise UserError(f"{truth} names classes without a folder in train/: {unknown[:5]}.")
    labels = np.array([wnids.index(by_number[number]) for number in numbers], np.int64)
    return ImageSplit("imagenet val", wnids, labels, None, tuple(paths))


def _devkit_numbers(folder: Path) -> dict[int, str]:
    """The devkit's class number → WordNet number."""
    synsets = read_mat(folder / DEVKIT / "meta.mat", "synsets")
    return {
        int(number): str(wnid)
        for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    }


def _devkit_words(folder: Path) -> dict[str, str]:
    """WordNet number → English words."""
    synsets = read_mat(folder / DEVKIT / "meta.mat", "synsets")
    pairs = zip(synsets["WNID"], synsets["words"], strict=True)
    return {str(wnid): str(words) for wnid, words in pairs}


def _readable(wnids: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    """Words where the devkit gives them; two classes are "crane": those keep their number."""
    names = [words.get(wnid, wnid) for wnid in wnids]
    return tuple(
        f"{name} ({wnid})" if names.count(name) > 1 else name
        for name, wnid in zip(names, wnids, strict=True)
    )
