"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their binary version: no pickle.

A record is 1 label byte (CIFAR-100: coarse, then fine label) and 3072 pixel bytes: red, green
and blue planes of 32 × 32.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixerkit.data.lists import read_lines
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """The files of one of the two sets; the label is the last of `label_bytes`."""

    name: str
    names_file: str
    train_files: tuple[str, ...]
    test_file: str
    label_bytes: int


CIFAR_10 = Cifar(
    "cifar10",
    "batches.meta.txt",
    tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test_batch.bin",
    label_bytes=1,
)
CIFAR_100 = Cifar("cifar100", "fine_label_names.txt", ("train.bin",), "test.bin", label_bytes=2)


def open_cifar10(folder: Path) -> Splits:
    """Training and test split from `cifar-10-batches-bin`."""
    return _open(CIFAR_10, folder)


def open_cifar100(folder: Path) -> Splits:
    """Training and test split from `cifar-100-binary`, with the 100 fine labels."""
    return _open(CIFAR_100, folder)


def _open(kind: Cifar, folder: Path) -> Splits:
    lines = read_lines(folder / kind.names_file)
    class_names = tuple(line.strip() for line in lines if line.strip())
    train = [_records(folder / name, kind, class_names) for name in kind.train_files]
    test = [_records(folder / kind.test_file, kind, class_names)]
    splits = (
        ImageSplit(
            f"{kind.name} {name}",
            class_names,
            np.concatenate([labels for labels, _ in parts]),
            np.concatenate([images for _, images in parts]),
        )
        for name, parts in (("train", train), ("test", test))
    )
    return Splits(next(splits), None, next(splits), f"{kind.name}: {folder}")


def _records(
    path: Path, kind: Cifar, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [N] and images uint8 [N, 32, 32, 3] of one file."""
    record = kind.label_bytes + PIXELS
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % record:
        raise UserError(
            f"{path} must be a whole number of records of {record} bytes, found "
            f"{len(content)} bytes: it is cut short or another file."
        )
    rows = content.reshape(-1, record)
    labels = rows[:, kind.label_bytes - 1].astype(np.int64)
    if labels.max() >= len(class_names):
        raise UserError(f"{path}: found label {labels.max()}, but {len(class_names)} class names.")
    planes_NIHW = rows[:, kind.label_bytes :].reshape(-1, 3, 32, 32)
    return labels, planes_NIHW.transpose(0, 2, 3, 1)
