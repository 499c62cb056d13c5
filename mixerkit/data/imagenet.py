"""ImageNet (ILSVRC 2012): folders by WordNet number, and the devkit when `val/` is flat."""

from pathlib import Path

import numpy as np

from mixerkit.data.folder import LeftOut, check_same_classes, open_classes
from mixerkit.data.lists import read_lines
from mixerkit.data.matlab import read_mat
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_names

DEVKIT = Path("ILSVRC2012_devkit_t12") / "data"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def open_imagenet(folder: Path) -> Splits:
    """Training split from `train/<wnid>/`; the 50 000 validation images are the test split.

    That is how the paper uses them (choices are made on a share of the training images: set
    data.holdout). Classes are in the order of the WordNet numbers and carry their English names:
    ImageNet-1k's own ones, others where the devkit is there.
    """
    _refuse_archives(folder / "train")
    left_out = LeftOut()
    train = open_classes(folder / "train", "imagenet train", left_out)
    words = {wnid: text for _, wnid, text in _synsets(folder)} if _has_synsets(folder) else {}
    if any(path.is_dir() for path in (folder / "val").iterdir()):
        test = open_classes(folder / "val", "imagenet val", left_out)
    else:
        test = _flat_validation(folder, train.class_names, left_out)
    check_same_classes(folder, train, test, "val")
    names = _readable(train.class_names, words)
    train, test = (
        ImageSplit(split.name, names, split.labels, None, split.paths) for split in (train, test)
    )
    return Splits(train, None, test, f"imagenet: {folder}{left_out.note()}")


def _refuse_archives(train: Path) -> None:
    """The archive of the training images holds an archive for each class."""
    archives = sorted(train.glob("*.tar"))
    if archives:
        raise UserError(
            f"{train} holds {len(archives)} archives: unpack each into a folder of its name, "
            f"{archives[0].name} into {train / archives[0].stem}, and take the archives out."
        )


def _flat_validation(folder: Path, wnids: tuple[str, ...], left_out: LeftOut) -> ImageSplit:
    """`val/` as it is distributed: the labels are the devkit's, in the order of the files."""
    truth = folder / DEVKIT / TRUTH
    if not truth.is_file():
        raise UserError(
            f"{folder / 'val'} has no sub-folders, so {truth} and meta.mat beside it are needed: "
            f"unpack ILSVRC2012_devkit_t12.tar.gz, from image-net.org too, in {folder}."
        )
    by_number = {number: wnid for number, wnid, _ in _synsets(folder)}
    paths = []
    for path in sorted((folder / "val").iterdir()):
        if path.suffix == ".JPEG":
            paths.append(path)
        elif not path.name.startswith("."):
            left_out.add(path)
    numbers = _truth_numbers(truth)
    if len(paths) != len(numbers):
        raise UserError(f"{folder / 'val'} has {len(paths)} images, {truth} {len(numbers)} lines.")
    unknown = sorted({by_number.get(n, str(n)) for n in numbers} - set(wnids))
    if unknown:
        raise UserError(f"{truth} names classes without a folder in train/: {unknown[:5]}.")
    labels = np.array([wnids.index(by_number[number]) for number in numbers], np.int64)
    return ImageSplit("imagenet val", wnids, labels, None, tuple(paths))


def _truth_numbers(truth: Path) -> list[int]:
    """One class number for each line."""
    lines = [line.strip() for line in read_lines(truth)]
    for number, line in enumerate(lines, 1):
        if not line.isdecimal():
            raise UserError(f"{truth}, line {number}: expected a class number, found {line!r}.")
    return [int(line) for line in lines]


def _has_synsets(folder: Path) -> bool:
    return (folder / DEVKIT / "meta.mat").is_file()


def _synsets(folder: Path) -> list[tuple[int, str, str]]:
    """The devkit's class number, WordNet number and English words of each class."""
    path = folder / DEVKIT / "meta.mat"
    synsets = read_mat(path, "synsets")
    try:
        columns = [np.atleast_1d(synsets[name]) for name in ("ILSVRC2012_ID", "WNID", "words")]
        return [
            (int(number), str(wnid), str(words))
            for number, wnid, words in zip(*columns, strict=True)
        ]
    except (IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected a table 'synsets' with ILSVRC2012_ID, WNID and words ({error}): "
            f"it is not the file of the devkit."
        ) from error


def _readable(wnids: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    """ImageNet-1k's names, or the devkit's `words`; of equal names each keeps its number."""
    known = words | imagenet_names()
    names = [known.get(wnid, wnid) for wnid in wnids]
    return tuple(
        f"{name} ({wnid})" if names.count(name) > 1 else name
        for name, wnid in zip(names, wnids, strict=True)
    )
