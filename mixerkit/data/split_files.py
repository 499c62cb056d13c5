"""Folders of files that hold many images each: which split a file is of, by its name or folder."""

import re
from collections.abc import Iterator
from pathlib import Path

SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""A word in the name of a file, or the name of a folder → the split."""


def files_by_split(folder: Path, ending: str, inside: str = "") -> Iterator[tuple[str, Path]]:
    """(split, file) of all files with that ending in `folder`, in its folders for splits, and in
    the one called `inside`, in the order of their names; without such a word in its name a file is
    for training."""
    for path in sorted(folder.iterdir()):
        if _counts(path, ending):
            yield _split_of(path.name), path
        elif path.is_dir() and path.name in SPLITS:
            yield from ((SPLITS[path.name], one) for one in _within(path, ending))
        elif path.is_dir() and path.name == inside:
            yield from ((_split_of(one.name), one) for one in _within(path, ending))


def holds_only(folder: Path, ending: str, inside: str = "") -> bool:
    """Whether there are such files in `folder`, or in its folders for splits, and no other folders:
    an archive beside what was unpacked from it is not meant."""
    with_files = {path.parent for _, path in files_by_split(folder, ending, inside)}
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return bool(with_files) and {path for path in visible if path.is_dir()} <= with_files


def _within(folder: Path, ending: str) -> list[Path]:
    return [one for one in sorted(folder.iterdir()) if _counts(one, ending)]


def _counts(path: Path, ending: str) -> bool:
    """Hidden files, such as macOS leaves beside others, do not."""
    return path.suffix == ending and not path.name.startswith(".") and path.is_file()


def _split_of(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "train")
