"""A folder of tar archives as a source of images: every archive is listed once, and its list kept.

    train-0000.tar  train-0001.tar  …  val-0000.tar        splits by the names of the archives
    train/…tar  val/…tar                                   or by folders
    n01440764.tar  n01443537.tar  …                        or one class to an archive

The classes are what the archives say: numbers, in their order, or names, sorted. `classes.txt`
gives names to numbers, one a line.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mixerkit.data.files import Member
from mixerkit.data.lists import read_lines
from mixerkit.data.split_files import files_by_split, holds_only
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.data.tar import Shard, scan
from mixerkit.errors import UserError

ENDING, CLASS_NAMES = ".tar", "classes.txt"
FORMAT = 1
KINDS = {"names": "S", "offsets": "i", "sizes": "i", "classes": "S"}
"""Arrays of a list → of what kind they are, in NumPy's letters."""


class Members(Sequence[Member]):
    """The images of several archives as one list, made as they are asked for: a million of them
    take 20 MB. `which`: numbers of images, over all archives in their order, int64 [N]."""

    def __init__(self, shards: Sequence[Shard], which: np.ndarray | None = None) -> None:
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *map(len, self.shards)])
        self.which = np.arange(self.starts[-1]) if which is None else which

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, index: int) -> Member: ...

    @overload
    def __getitem__(self, index: slice) -> "Members": ...

    def __getitem__(self, index: int | slice) -> "Member | Members":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number = self.which[index]
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.shards[shard][int(number - self.starts[shard])]

    def take(self, indices: np.ndarray) -> "Members":
        """Those at `indices`, in that order."""
        return Members(self.shards, self.which[indices])


def has_shards(folder: Path) -> bool:
    """Whether `folder` holds archives, and nothing that was unpacked from them."""
    return holds_only(folder, ENDING)


def open_shards(folder: Path) -> Splits:
    """The splits of the archives in `folder`."""
    shards: dict[str, list[Shard]] = {}
    for split, path in files_by_split(folder, ENDING):
        shards.setdefault(split, []).append(listed(path))
    if not any(map(len, shards.get("train", []))):
        raise UserError(f"{folder}: no archive for training holds an image.")
    texts = {split: _classes(found) for split, found in shards.items()}
    names = _class_names(folder, texts["train"])
    splits = {
        split: _split(f"{folder.name} {split}", found, texts[split], names)
        for split, found in shards.items()
    }
    everything = [one for found in shards.values() for one in found]
    left_out = sum(one.left_out for one in everything)
    note = f"; {left_out:,} files in them are no images of a class" if left_out else ""
    origin = f"{folder}: {len(everything):,} archives{note}"
    return Splits(splits["train"], splits.get("val"), splits.get("test"), origin)


def _classes(shards: list[Shard]) -> np.ndarray:
    """What says the class of each image, bytes [N]: the archive's name where nothing in it does."""
    found = [
        shard.classes
        if shard.classes.astype(bool).any()
        else np.full(len(shard), os.fsencode(shard.path.stem))
        for shard in shards
    ]
    return np.concatenate(found)


def _class_names(folder: Path, texts: np.ndarray) -> dict[bytes, str]:
    """What the archives say → the names of the classes, in their order."""
    known = [one for one in np.unique(texts).tolist() if one]
    names_file = folder / CLASS_NAMES
    if not all(one.isdigit() for one in known):
        return {one: os.fsdecode(one) for one in known}
    known.sort(key=int)
    if not names_file.is_file():
        return {one: one.decode() for one in known}
    names = read_lines(names_file)
    if int(known[-1]) >= len(names):
        raise UserError(
            f"{names_file} names {len(names)} classes, and an image is of class "
            f"{int(known[-1])}: expected a line for each class from 0 on."
        )
    return {str(number).encode(): name for number, name in enumerate(names)}


def _split(
    name: str, shards: list[Shard], texts: np.ndarray, names: dict[bytes, str]
) -> ImageSplit:
    keys = {text: label for label, text in enumerate(names)}
    found, places = np.unique(texts, return_inverse=True)
    unknown = [os.fsdecode(one) for one in found.tolist() if one not in keys]
    if unknown:
        raise UserError(f"{name}: classes that training does not have: {', '.join(unknown[:5])}.")
    labels = np.array([keys[one] for one in found.tolist()], np.int64)[places]
    return ImageSplit(name, tuple(names.values()), labels, None, Members(shards))


# -- the lists that are kept --------------------------------------------------------------


def listed(path: Path) -> Shard:
    """The images of an archive, from the list beside it where that belongs to the archive as it
    is now, else from the archive; then the list is kept, where the folder can be written in."""
    about = path.stat()
    belongs = np.array([FORMAT, about.st_size, about.st_mtime_ns], np.int64)
    index = path.with_name(f".{path.name}.index.npz")
    found = _read(path, index, belongs)
    if found is None:
        found = scan(path)
        _keep(found, index, belongs)
    return found


def _read(path: Path, index: Path, belongs: np.ndarray) -> Shard | None:
    try:
        with index.open("rb") as file:
            kept = np.load(file, allow_pickle=False)
            if not np.array_equal(kept["belongs"], belongs):
                return None
            arrays = {name: kept[name] for name in KINDS}
            left_out = int(kept["left_out"])
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None
    shapes = {array.shape for array in arrays.values()}
    fits = all(array.dtype.kind == KINDS[name] for name, array in arrays.items())
    return Shard(path, left_out=left_out, **arrays) if fits and len(shapes) == 1 else None


def _keep(shard: Shard, index: Path, belongs: np.ndarray) -> None:
    part = index.with_name(f"{index.name}.{os.getpid()}")
    arrays = {name: getattr(shard, name) for name in KINDS}
    try:
        with part.open("wb") as file:
            np.savez(file, belongs=belongs, left_out=np.int64(shard.left_out), **arrays)
        part.replace(index)
    except OSError:  # it is made again the next time
        part.unlink(missing_ok=True)
