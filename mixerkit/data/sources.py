"""Where images come from: named sets, a folder with one sub-folder per class, tar archives, Parquet
files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixerkit.data.cifar import CIFAR_10, CIFAR_100, Cifar, open_cifar10, open_cifar100
from mixerkit.data.fashion_mnist import open_fashion_mnist
from mixerkit.data.flowers import open_flowers102
from mixerkit.data.folder import open_folder
from mixerkit.data.imagenet import open_imagenet
from mixerkit.data.imagenet_v2 import open_imagenet_v2
from mixerkit.data.parquet import has_parquet, open_parquet
from mixerkit.data.pets import open_pets
from mixerkit.data.remote import is_address, open_address
from mixerkit.data.shards import has_shards, open_shards
from mixerkit.data.splits import (
    ImageSplit,
    Splits,
    hold_out,
    join_validation,
    of_classes,
    thin_out,
)
from mixerkit.errors import UserError, did_you_mean
from mixerkit.spec.recipe import Data

__all__ = [
    "SOURCES", "ImageSplit", "Source", "Splits", "hold_out", "open_source", "opened", "thin_out",
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A named set: how it is opened, and for a set that the user must bring, what is expected.

    `folder`: its usual name under the data folder. `expected`: paths inside it. `obtain`: where
    it is to be had and how it is unpacked, the end of a sentence.
    """

    open: Callable[[Path], Splits] | None = None
    folder: str = ""
    expected: tuple[str, ...] = ()
    obtain: str = ""


def _cifar_files(kind: Cifar) -> tuple[str, ...]:
    return (kind.names_file, *kind.train_files, kind.test_file)


_TORONTO = "www.cs.toronto.edu/~kriz/cifar.html, the binary version: unpack"
SOURCES: dict[str, Source] = {
    "fashion-mnist": Source(),
    "cifar10": Source(
        open_cifar10,
        "cifar-10-batches-bin",
        _cifar_files(CIFAR_10),
        f"{_TORONTO} cifar-10-binary.tar.gz",
    ),
    "cifar100": Source(
        open_cifar100,
        "cifar-100-binary",
        _cifar_files(CIFAR_100),
        f"{_TORONTO} cifar-100-binary.tar.gz",
    ),
    "flowers102": Source(
        open_flowers102,
        "flowers102",
        ("jpg", "imagelabels.mat", "setid.mat"),
        "www.robots.ox.ac.uk/~vgg/data/flowers/102: unpack 102flowers.tgz, and put imagelabels.mat "
        "and setid.mat beside jpg/",
    ),
    "pets": Source(
        open_pets,
        "pets",
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        "www.robots.ox.ac.uk/~vgg/data/pets: unpack images.tar.gz and annotations.tar.gz",
    ),
    "imagenet": Source(
        open_imagenet,
        "imagenet",
        ("train", "val"),
        "image-net.org, for those who sign in and agree to its terms (research and teaching, "
        "nothing passed on): unpack ILSVRC2012_img_train.tar, and each archive in it into "
        "train/WORDNET-NUMBER/, ILSVRC2012_img_val.tar into val/, and "
        "ILSVRC2012_devkit_t12.tar.gz beside both",
    ),
    "imagenet-v2": Source(
        open_imagenet_v2,
        "imagenetv2-matched-frequency-format-val",
        ("0", "999"),
        "huggingface.co/datasets/vaishaal/ImageNetV2, whose images may be used as ImageNet's: "
        "unpack imagenetv2-matched-frequency.tar.gz",
    ),
}


def opened(data: Data) -> Splits:
    """The splits that `data` names: of its source, with its classes, its validation images joined
    to the training images where it says so, and some of these held out."""
    splits = open_source(data.source, data.root, data.classes)
    if data.classes:
        splits = of_classes(splits, data.classes)
    if data.join_validation:
        splits = join_validation(splits)
    if not len(splits.train):  # a source for testing only, of which nothing can be held out
        return splits
    return hold_out(splits, data.holdout, data.split_seed)


def open_source(source: str, root: str = "", classes: Sequence[str] = ()) -> Splits:
    """The splits of a named set (`SOURCES`), of a folder with one sub-folder per class, archives or
    Parquet files, or of archives or Parquet files at an address.

    A folder's splits must have the same classes; with `classes`, those of these names.
    Named sets are looked for in the folder `root` and in the one that the environment
    variable MIXERKIT_DATA names; what cannot be found is a `UserError` that says what is
    expected where.
    """
    roots = tuple(_path(folder) for folder in (root, os.environ.get("MIXERKIT_DATA")) if folder)
    if root and not roots[0].is_dir():
        raise UserError(f"data.root must be a folder, found no folder {root}.")
    if source in SOURCES:
        note = _shadowed(source, roots)
        try:
            splits = _open_named(source, SOURCES[source], roots)
        except UserError as error:
            raise UserError(f"{error}{note and f' Not used: {note}.'}") from error
        return replace(splits, origin=f"{splits.origin}{note and f'; not used: {note}'}")
    if is_address(source):
        return open_address(source)
    path = _path(source)
    for folder in (path, *(base / source for base in roots)):
        if source and folder.is_dir():
            if has_parquet(folder):
                return open_parquet(folder)
            return open_shards(folder) if has_shards(folder) else open_folder(folder, classes)
    kind = "is a file, not a folder" if path.is_file() else "is no folder"
    raise UserError(
        f"The data source '{source}' {kind} and no named set.{did_you_mean(source, SOURCES)} "
        f"Named sets: {', '.join(SOURCES)}. A folder must have one sub-folder per class, "
        f"or hold tar archives or Parquet files."
    )


def _path(text: str) -> Path:
    """The path, with ~ for the user's own folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"Cannot tell what ~ stands for in {text}: {error}") from error


def _shadowed(name: str, roots: tuple[Path, ...]) -> str:
    """What to say of a folder here that has the name of a named set; empty without one."""
    own = Path(name)
    if not own.is_dir() or own.resolve() in [(base / name).resolve() for base in roots]:
        return ""
    return f"the folder {name} here, which as a data source is written ./{name}"


def _open_named(name: str, source: Source, roots: tuple[Path, ...]) -> Splits:
    if source.open is None:
        return open_fashion_mnist(roots)
    places = [place for base in roots for place in (base / source.folder, base / name, base)]
    for folder in dict.fromkeys(places):
        if all((folder / item).exists() for item in source.expected):
            return source.open(folder)
    looked = ", ".join(str(base) for base in roots) or "no folder was given"
    raise UserError(
        f"The data set {name} was not found ({looked}).{_incomplete(source, places)} Put it into a "
        f"folder DATA/{source.folder} that holds {', '.join(source.expected)}, and set data.root "
        f"or the environment variable MIXERKIT_DATA to DATA. It is not fetched by itself; to be "
        f"had from {source.obtain}."
    )


def _incomplete(source: Source, places: list[Path]) -> str:
    """What the first folder lacks that holds a part of a set; empty without one."""
    for folder in places:
        missing = [item for item in source.expected if not (folder / item).exists()]
        if 0 < len(missing) < len(source.expected):
            return f" {folder} is there, without {', '.join(missing)}."
    return ""
