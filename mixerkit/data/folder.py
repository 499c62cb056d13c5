"""A folder of images: one sub-folder per class, or train/, val/ and test/ with those inside; val/
or test/ alone are for measuring models."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from mixerkit.data.decode import EXTENSIONS
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError
from mixerkit.spec.choices import as_words, classes_named

SPLIT_NAMES = ("train", "val", "test")


@dataclass
class LeftOut:
    """What was found in the folder and not used; hidden files are not counted."""

    count: int = 0
    example: str = ""

    def add(self, path: Path) -> None:
        self.count += 1
        self.example = self.example or path.name

    def note(self) -> str:
        """For the end of `origin`; empty when everything was used."""
        if self.count == 0:
            return ""
        files = (
            "1 file that is not an image of a class was"
            if self.count == 1
            else (f"{self.count} files that are not images of a class were")
        )
        return f" ({files} left out: {self.example}{', …' if self.count > 1 else ''})"


def open_folder(folder: Path, classes: Sequence[str] = ()) -> Splits:
    """The splits in `folder`; classes in the order of their names.

    With `train/` (holding sub-folders) the split folders are taken, `val/` and `test/` when they
    are there, and without it where there is nothing else; otherwise every sub-folder is a class and
    there is one training split. Classes must be the same in all splits; with `classes`, which are
    taken afterwards, those of these names.
    """
    left_out = LeftOut()
    names = _split_names(folder)
    if not names:
        _refuse_splits_under_other_names(folder)
        train = open_classes(folder, folder.name, left_out)
        return Splits(train, None, None, f"{folder}{left_out.note()}")
    _refuse_other_folders(folder)
    found = {name: open_classes(folder / name, f"{folder.name} {name}", left_out) for name in names}
    first = found[names[0]]
    for name in names[1:]:
        check_same_classes(folder, first, found[name], name, names[0], classes)
        found[name] = _numbered_as(first.class_names, found[name])
    nothing = replace(first.subset([]), name=folder.name)
    train, origin = found.get("train", nothing), f"{folder}{left_out.note()}"
    return Splits(train, found.get("val"), found.get("test"), origin)


def _numbered_as(names: tuple[str, ...], split: ImageSplit) -> ImageSplit:
    """The images of those classes that are among `names`, labelled by their places there."""
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number.get(name, -1) for name in split.class_names], np.int64)[split.labels]
    kept = split.subset(np.flatnonzero(labels >= 0))
    return replace(kept, class_names=names, labels=labels[labels >= 0])


def open_classes(folder: Path, name: str, left_out: LeftOut) -> ImageSplit:
    """One split: every sub-folder of `folder` is a class, with all images below it."""
    classes = _sub_folders(folder)
    for path in _visible(folder):
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{path} is a link that leads nowhere, perhaps to a class on a disk that is not "
                f"there: put that back, or take the link away."
            )
        if not path.is_dir():
            left_out.add(path)
    if len(classes) < 2:
        found = f"only '{classes[0].name}'" if classes else "no sub-folder"
        inside = bool(classes) and len(_sub_folders(classes[0])) > 1
        raise UserError(
            f"{folder} must hold at least two sub-folders, one per class with its images; "
            f"found {found}.{f' Are the classes in there? Give {classes[0]}.' if inside else ''}"
        )
    labels: list[int] = []
    paths: list[Path] = []
    for label, class_folder in enumerate(classes):
        images = list(images_below(class_folder, left_out.add))
        if not images:
            raise UserError(
                f"The class folder {class_folder} holds no image ({', '.join(EXTENSIONS)}), and "
                f"what has no image cannot be learned: add some or take the folder out."
            )
        paths += images
        labels += [label] * len(images)
    names = tuple(path.name for path in classes)
    return ImageSplit(name, names, np.array(labels, np.int64), None, tuple(paths))


def images_below(folder: Path, leave_out: Callable[[Path], object]) -> Iterator[Path]:
    """Image files (by their ending), of each folder before those below it, in order of name.
    `leave_out` is told of the rest, but for what is hidden. `UserError`: one cannot be read."""
    for here, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(here) / name).is_symlink():  # os.walk does not follow it
                leave_out(Path(here) / name)
        for name in sorted(files):
            path = Path(here) / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in EXTENSIONS:
                yield path
            else:
                leave_out(path)


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)
    return [path for path in entries if not path.name.startswith(".")]


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be listed would be one without images, in silence."""
    raise UserError(f"Cannot read the folder {error.filename}: {error.strerror}.") from error


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _split_names(folder: Path) -> list[str]:
    """Which splits there are. `train` may also be a class among others: then it holds images, not
    folders; so may `val` and `test`, which are splits without it where nothing else is there."""
    found = [name for name in SPLIT_NAMES if (folder / name).is_dir()]
    if "train" in found:
        return found if _sub_folders(folder / "train") else []
    alone = len(found) == len(_sub_folders(folder))
    hold_folders = all(
        _sub_folders(folder / name) and not _holds_images(folder / name) for name in found
    )
    return found if alone and hold_folders else []


def images_directly_in(folder: Path) -> list[Path]:
    """Image files, by their ending, of the folder itself and none below it; hidden ones are left
    out."""
    return [path for path in _visible(folder) if path.suffix.lower() in EXTENSIONS]


def _holds_images(folder: Path) -> bool:
    return bool(images_directly_in(folder))


def _refuse_other_folders(folder: Path) -> None:
    others = [path.name for path in _sub_folders(folder) if path.name not in SPLIT_NAMES]
    if others:
        raise UserError(
            f"{folder} has train/, so only val/ and test/ are expected beside it; found "
            f"{', '.join(others)}. Rename or move what should not be used."
        )


def _refuse_splits_under_other_names(folder: Path) -> None:
    """Folders without images of their own that share sub-folders are hardly classes."""
    seen: dict[str, Path] = {}
    for outer in _sub_folders(folder):
        if _holds_images(outer):
            continue
        for inner in _sub_folders(outer):
            first = seen.setdefault(inner.name, outer)
            if first != outer:
                raise UserError(
                    f"{folder}: {first.name}/ and {outer.name}/ look like splits, not like "
                    f"classes: they hold no image themselves, and both have a sub-folder "
                    f"{inner.name}/. Rename splits to train/ and val/ (and test/), name one set "
                    f"where there are several, or put the images of a class directly into it."
                )


def check_same_classes(
    folder: Path,
    train: ImageSplit,
    split: ImageSplit,
    name: str,
    first: str = "train",
    classes: Sequence[str] = (),
) -> None:
    """`UserError` that lists the classes which only one of `first`/ and `name`/ has; of `classes`
    alone where any are given."""
    here, there = set(train.class_names), set(split.class_names)
    if classes:
        chosen = set(classes_named(classes, sorted(here | there)))
        here, there = here & chosen, there & chosen
    more, less = sorted(there - here), sorted(here - there)
    if more or less:
        differences = [
            f"only in {where}/: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
            for where, names in ((name, more), (first, less))
            if names
        ]
        both = as_words(sorted(here & there))
        advice = f" To take those that both have:\n  data.classes {both}" if both else ""
        raise UserError(
            f"{folder}: {first}/ and {name}/ must have the same classes; {'; '.join(differences)}."
            f"{advice}"
        )
