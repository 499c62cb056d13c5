"""Parquet files as a source, in the form of the Hugging Face hub: a column of images, each with its
bytes, and a column of labels.

    train-00000-of-00041.parquet  …  validation-….parquet  test-….parquet      or inside data/

Only groups of rows can be read, some hundred images at once. So an epoch takes the images of many
neighbouring groups in any order before it goes on to others (`ImageSplit.blocks`), and the groups
in use are kept.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from mixerkit.data.decode import BrokenImage
from mixerkit.data.split_files import files_by_split, holds_only
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError, how_to_install

ENDING, INSIDE = ".parquet", "data"
LABELS = ("label", "labels", "fine_label", "class", "cls")
"""Columns that hold the class where the file does not say which does, in order of preference."""
MOST_TOGETHER = 4096
"""Images that are visited in any order: many times a batch, and more gain nothing."""
MOST_CLASSES = 1_000_000
HIDDEN = -1
"""The label of images whose labels are kept secret."""
KEPT = 2**31
"""Bytes of groups of rows that stay in memory, but for those that are being read."""
MOST_OF_A_GROUP = KEPT // 2
"""Bytes of a group, which must be read together."""


@dataclass(frozen=True)
class Columns:
    """`image`: the column whose `bytes` are the files. `label`: the one of the classes, and
    `names`: what its numbers stand for, empty where the file does not say."""

    image: str
    label: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A row of a Parquet file: number `row` of group `group`."""

    file: Path
    group: int
    row: int
    column: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row} of group {self.group}"

    @property
    def size(self) -> int:
        """Not known before the group is read."""
        return 0

    def content(self) -> bytes:
        """The bytes of the image file, read now with its whole group or kept from before."""
        images = GROUPS.get(self.file, self.group, self.column)
        found = images[self.row].as_py()
        if found is None:
            raise BrokenImage("the row has no bytes; files beside the Parquet file are not read.")
        return bytes(found)


class Groups:
    """Groups of rows that were read, the latest used of them; each is read by one thread while
    others that want it wait."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lock = threading.Lock()
        self.found: OrderedDict[tuple[Path, int, str], Future[Any]] = OrderedDict()

    def get(self, file: Path, group: int, column: str) -> Any:
        """The images of a group, an Arrow array of binaries."""
        key = (file, group, column)
        with self.lock:
            known = self.found.get(key)
            future: Future[Any] = known or Future()
            self.found[key] = future
            self.found.move_to_end(key)
        if known is None:
            try:
                future.set_result(read_group(file, group, column))
            except BaseException as error:
                with self.lock:
                    self.found.pop(key, None)
                future.set_exception(error)
            else:
                self._forget()
        return future.result()

    def _forget(self) -> None:
        """Let go of the groups that were not used for longest, but the newest."""
        with self.lock:
            sizes = {k: f.result().nbytes for k, f in self.found.items() if f.done()}
            total = sum(sizes.values())
            for key in list(sizes)[:-1]:
                if total <= self.capacity:
                    return
                total -= sizes[key]
                del self.found[key]


GROUPS = Groups(KEPT)


def read_group(file: Path, group: int, column: str) -> Any:
    """The bytes of the images in one group of rows, as an Arrow array."""
    with _opened(file) as opened:
        table = opened.read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
        return table.column(column).combine_chunks().field("bytes")


class Rows(Sequence[Row]):
    """Rows of several files as one list, made as they are asked for. `which`: numbers of rows over
    all files in their order; `starts`: where each group begins among them; `groups`: (number of
    the file, of the group in it). `together`: how many rows can be visited as if they were one
    group, so that the groups of two such parts of an epoch stay in memory."""

    def __init__(
        self,
        files: Sequence[Path],
        column: str,
        starts: np.ndarray,
        groups: np.ndarray,
        which: np.ndarray,
        together: int,
    ) -> None:
        self.files, self.column, self.together = tuple(files), column, together
        self.starts, self.groups, self.which = starts, groups, which

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> "Rows": ...

    def __getitem__(self, index: int | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number = self.which[index]
        block = int(np.searchsorted(self.starts, number, side="right")) - 1
        file, group = self.groups[block]
        row = int(number - self.starts[block])
        return Row(self.files[file], int(group), row, self.column)

    def take(self, indices: np.ndarray) -> "Rows":
        """Those at `indices`, in that order."""
        which = self.which[indices]
        return Rows(self.files, self.column, self.starts, self.groups, which, self.together)

    def blocks(self) -> np.ndarray:
        """The number of the group that each row is in, over all files: int64 [N]."""
        return np.searchsorted(self.starts, self.which, side="right") - 1


def has_parquet(folder: Path) -> bool:
    """Whether `folder` holds Parquet files, itself or in its data/, and no folders of images."""
    return holds_only(folder, ENDING, INSIDE)


def open_parquet(folder: Path) -> Splits:
    """The splits of the Parquet files in `folder`; one whose labels are hidden is left out."""
    files: dict[str, list[Path]] = {}
    for split, path in files_by_split(folder, ENDING, INSIDE):
        files.setdefault(split, []).append(path)
    if "train" not in files:
        raise UserError(f"{folder}: no Parquet file for training (none with 'train' in its name).")
    columns = _columns(files["train"][0])
    texts = {split: _labels(paths, columns) for split, paths in files.items()}
    if not len(texts["train"]):
        raise UserError(f"{folder}: the Parquet files for training hold no rows.")
    hidden = [split for split, found in texts.items() if _is_hidden(found)]
    names = columns.names or _names(texts["train"])
    splits = {
        split: _split(f"{folder.name} {split}", files[split], columns, found, names)
        for split, found in texts.items()
        if split not in hidden
    }
    if "train" in hidden:
        raise UserError(f"{folder}: the training images have no labels (all are {HIDDEN}).")
    note = f"; {', '.join(hidden)}: labels are hidden, so that it is left out" if hidden else ""
    count = sum(map(len, files.values()))
    origin = f"{folder}: {count:,} Parquet files, classes from '{columns.label}'{note}"
    return Splits(splits["train"], splits.get("val"), splits.get("test"), origin)


def _is_hidden(labels: np.ndarray) -> bool:
    return len(labels) > 0 and labels.dtype.kind == "i" and bool((labels == HIDDEN).all())


def check_installed() -> None:
    """`UserError` where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Reading Parquet files needs pyarrow: {how_to_install('pyarrow')}"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, by pyarrow; what goes wrong with it is a `UserError` that names it."""
    check_installed()
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as opened:
            yield opened
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no whole Parquet file: {error}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def check(path: Path) -> None:
    """Raise `UserError` unless the file has a beginning, an end, and a table of its content."""
    with _opened(path):
        pass


def _columns(path: Path) -> Columns:
    """Which columns hold images and classes, and the classes' names."""
    with _opened(path) as opened:
        schema = opened.schema_arrow
        described = _features((schema.metadata or {}).get(b"huggingface", b""))
    with_bytes = [field.name for field in schema if _has_bytes(field)]
    if not with_bytes:
        raise UserError(
            f"{path} has no column of images (bytes and path, as the Hugging Face hub has them); "
            f"its columns: {', '.join(schema.names)}."
        )
    named = [name for name, feature in described.items() if feature.get("_type") == "ClassLabel"]
    label = next((name for name in (*named, *LABELS) if name in schema.names), None)
    if label is None:
        raise UserError(
            f"{path} has no column of classes: expected one that is called {' or '.join(LABELS)}; "
            f"its columns: {', '.join(schema.names)}."
        )
    names = described.get(label, {}).get("names") or []
    return Columns(with_bytes[0], label, tuple(map(str, names)))


def _has_bytes(field: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_struct(field.type)) and any(
        part.name == "bytes" and (kinds.is_binary(part.type) or kinds.is_large_binary(part.type))
        for part in field.type
    )


def _features(text: bytes) -> dict[str, dict[str, Any]]:
    """What the hub's library wrote about the columns; nothing where it wrote none."""
    try:
        found = json.loads(text)["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    valid = isinstance(found, dict) and all(isinstance(one, dict) for one in found.values())
    return found if valid else {}


def _labels(paths: list[Path], columns: Columns) -> np.ndarray:
    """The labels of all rows: whole numbers, or texts."""
    found = []
    for path in paths:
        with _opened(path) as opened:
            schema = opened.schema_arrow
            if columns.label not in schema.names:
                raise UserError(f"{path} has no column '{columns.label}', as others have.")
            if columns.image not in schema.names or not _has_bytes(schema.field(columns.image)):
                raise UserError(
                    f"{path} has no images in a column '{columns.image}', as others have."
                )
            column = opened.read(columns=[columns.label], use_threads=False).column(0)
            if column.null_count:
                raise UserError(f"{path}: {column.null_count} rows have no {columns.label}.")
            found.append(column.to_numpy())
    labels = np.concatenate(found)
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    if labels.dtype.kind == "O" and all(isinstance(one, str) for one in labels):
        return labels.astype(np.str_)
    raise UserError(
        f"{paths[0]}: '{columns.label}' must hold whole numbers or texts, found {labels.dtype}."
    )


def _names(labels: np.ndarray) -> tuple[str, ...]:
    """The classes where the file does not name them: the numbers up to the largest, or the texts in
    their order."""
    if labels.dtype.kind != "i":
        return tuple(np.unique(labels).tolist())
    most = int(labels.max(initial=-1)) + 1
    if most > MOST_CLASSES:
        raise UserError(
            f"A label of {most - 1:,} is no class: at most {MOST_CLASSES:,} are expected."
        )
    return tuple(str(number) for number in range(most))


def together_of(sizes: np.ndarray, weights: np.ndarray) -> int:
    """How many rows may be visited together, by the rows and the bytes of all groups. Such a part
    of an epoch takes no more than half of what is kept, also with the group that it ends in: the
    next part is read while it is visited."""
    of_a_row = max(1.0, float((weights / np.maximum(sizes, 1)).max(initial=1.0)))
    left = KEPT / 2 - float(weights.max(initial=0))
    return max(1, min(MOST_TOGETHER, int(left / of_a_row)))


def _split(
    name: str, files: list[Path], columns: Columns, labels: np.ndarray, names: tuple[str, ...]
) -> ImageSplit:
    if labels.dtype.kind == "U":
        numbers = {text: number for number, text in enumerate(names)}
        labels = np.array([numbers.get(text, HIDDEN) for text in labels.tolist()], np.int64)
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        raise UserError(
            f"{name}: {outside.sum():,} of {len(labels):,} images have a label that is none of the "
            f"{len(names):,} classes, the first at row {int(np.argmax(outside)):,}."
        )
    sizes, groups, weights = [], [], []
    for number, path in enumerate(files):
        with _opened(path) as opened:
            for group in range(opened.metadata.num_row_groups):
                about = opened.metadata.row_group(group)
                if about.total_byte_size > MOST_OF_A_GROUP:
                    raise UserError(
                        f"{path}: group {group} of {about.num_rows:,} rows has "
                        f"{about.total_byte_size / 2**30:.1f} GiB, which must be read together: "
                        f"write the file with smaller row groups."
                    )
                sizes.append(about.num_rows)
                weights.append(about.total_byte_size)
                groups.append((number, group))
    starts = np.cumsum([0, *sizes])[:-1]
    together = together_of(np.array(sizes), np.array(weights))
    rows = Rows(files, columns.image, starts, np.array(groups), np.arange(len(labels)), together)
    return ImageSplit(name, names, labels, None, rows)
