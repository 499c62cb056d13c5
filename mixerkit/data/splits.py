"""What every source of images gives: splits of labelled images, and holding some of them out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixerkit.data.draws import HOLD_OUT, uniforms
from mixerkit.data.files import Place
from mixerkit.errors import UserError, did_you_mean
from mixerkit.spec.choices import classes_named

NAMED = 5
"""Unknown classes that an error names at most."""


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Labelled images: either all in memory as stored, or one file per item.

    `name`: for people, such as "fashion-mnist train". `labels`: int64 [N], indices into
    `class_names`. `images`: uint8 [N, H, W, I], or None when `paths` names the file of each item,
    or its place in an archive.
    """

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray | None
    paths: Sequence[Place] = ()

    def __post_init__(self) -> None:
        assert len(self.labels) == (len(self.paths) if self.images is None else len(self.images))

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, index: int) -> str:
        """Where an item is to be found, for people."""
        return (
            f"image {index} of {self.name}" if self.images is not None else f"{self.paths[index]}"
        )

    def blocks(self) -> np.ndarray | None:
        """For items that can only be read many at once: which of them are, as the number of a block
        for each, int64 [N]."""
        blocks = getattr(self.paths, "blocks", None)
        return blocks() if blocks else None

    @property
    def together(self) -> int:
        """How many items of neighbouring blocks can be visited in any order."""
        return int(getattr(self.paths, "together", len(self)))

    def subset(self, indices: np.ndarray | Sequence[int]) -> "ImageSplit":
        """The items at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[chosen],
            images=None if self.images is None else self.images[chosen],
            paths=_taken(self.paths, chosen) if self.images is None else (),
        )


def _taken(paths: Sequence[Place], indices: np.ndarray) -> Sequence[Place]:
    """Those at `indices`; a list that makes them when they are asked for has a way of its own."""
    take = getattr(paths, "take", None)
    return take(indices) if take else tuple(paths[index] for index in indices)


@dataclass(frozen=True, eq=False)
class Splits:
    """The splits of one source, and where it was found: `origin`, one line for people.

    `train` is empty, and names the classes, where a source is for testing only.
    """

    train: ImageSplit
    validation: ImageSplit | None
    test: ImageSplit | None
    origin: str


def for_testing(test: ImageSplit, origin: str) -> Splits:
    """The splits of a source that measures models and trains none."""
    return Splits(test.subset([]), None, test, origin)


def check_trainable(splits: Splits) -> Splits:
    """`splits` again, or `UserError` when they hold nothing to train on."""
    if not len(splits.train):
        raise UserError(
            f"{splits.train.name} has no training images, it is there to measure models: train on "
            f"other data, then `mixer evaluate MODEL --data.source NAME`."
        )
    return splits


def check_files(splits: Splits) -> Splits:
    """`splits` again, or `UserError` when its lists name files that are not there."""
    for split in (splits.train, splits.validation, splits.test):
        files = (path for path in split.paths if isinstance(path, Path)) if split else ()
        missing = [path for path in files if not path.is_file()]
        if split and missing:
            raise UserError(
                f"{split.name}: {len(missing)} of {len(split)} files are missing, the first "
                f"is {missing[0]}."
            )
    return splits


def hold_out(splits: Splits, holdout: float, split_seed: int) -> Splits:
    """Move `holdout` training images (a count, or a share below 1) to the validation split.

    Every class gives its share, to the nearest image, and the total is exact; which images go
    depends on `split_seed` alone. 0 changes nothing. A source with a validation split of its
    own and no test split keeps that one as the test split, and `origin` says so; with both,
    `UserError`.
    """
    if holdout == 0:
        return splits
    test, origin = splits.test, splits.origin
    if splits.validation is not None:
        if test is not None:
            raise UserError(
                f"{splits.train.name} comes with a validation split of "
                f"{len(splits.validation)} images: set data.holdout to 0 to use it, found "
                f"{holdout:g}."
            )
        test = splits.validation
        origin += "; its own validation split is the test split, because data.holdout is set"
    held = _stratified(splits.train, _count(splits.train, holdout), split_seed)
    kept = np.setdiff1d(np.arange(len(splits.train)), held)
    validation = replace(splits.train.subset(held), name=f"{splits.train.name}, held out")
    return Splits(splits.train.subset(kept), validation, test, origin)


def of_classes(splits: Splits, names: Sequence[str]) -> Splits:
    """Only the images of the classes called so, numbered anew in the source's order; several names
    may be one text with commas between them."""
    known = splits.train.class_names
    names = classes_named(names, known)
    missing = [name for name in dict.fromkeys(names) if name not in known]
    if missing:
        each = [f"no class '{name}'.{did_you_mean(name, known)}" for name in missing[:NAMED]]
        raise UserError(
            f"data.classes: {splits.train.name} has {' And '.join(each)} It has "
            f"{', '.join(known[:20])}{', …' if len(known) > 20 else ''}."
        )
    kept = tuple(name for name in known if name in names)
    number = np.array([kept.index(name) if name in kept else -1 for name in known], np.int64)

    def some(split: ImageSplit | None) -> ImageSplit | None:
        if split is None:
            return None
        found = split.subset(np.flatnonzero(number[split.labels] >= 0))
        return replace(found, class_names=kept, labels=number[found.labels])

    train = some(splits.train)
    assert train is not None
    origin = f"{splits.origin}; {len(kept)} of {len(known)} classes"
    return Splits(train, some(splits.validation), some(splits.test), origin)


def join_validation(splits: Splits) -> Splits:
    """The training images and the source's own validation images as one training split. Where there
    is no test split, those are the test split instead, and `origin` says so. A source for testing
    only stays as it is."""
    train, own = splits.train, splits.validation
    if own is None or not len(train):
        return splits
    if splits.test is None:
        origin = f"{splits.origin}; its own validation split is the test split"
        return Splits(train, None, own, origin)
    if (train.images is None) != (own.images is None):
        raise UserError(
            f"{train.name} and {own.name} are stored in different ways and cannot be joined: leave "
            f"data.join_validation out."
        )
    images = None
    if train.images is not None and own.images is not None:
        images = np.concatenate([train.images, own.images])
    joined = replace(
        train,
        name=f"{train.name} and validation",
        labels=np.concatenate([train.labels, own.labels]),
        images=images,
        paths=(*train.paths, *own.paths),
    )
    return replace(splits, train=joined, validation=None)


def thin_out(splits: Splits, share: float, split_seed: int) -> Splits:
    """Keep a `share` of the training images, of every class alike and at least one each; of a
    smaller share, all are among those of a larger one. 1 changes nothing."""
    if share == 1:
        return splits
    train = splits.train
    sizes = np.bincount(train.labels, minlength=len(train.class_names))
    draw = uniforms(split_seed, 0, np.arange(len(train)), 1, HOLD_OUT)[:, 0]
    # Where each image stands in its class, as a share of it: the first of all classes come first.
    order = np.lexsort((draw, train.labels))
    place = np.empty(len(train))
    place[order] = np.arange(len(train)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share_before = np.where(place == 0, -1.0, (place + 0.5) / sizes[train.labels])
    count = max(int((sizes > 0).sum()), round(share * len(train)))
    kept = np.lexsort((draw, share_before))[:count]
    return replace(splits, train=train.subset(np.sort(kept)))


def _count(train: ImageSplit, holdout: float) -> int:
    """The number of images to hold out; at least one and leaving one of each class."""
    count = round(holdout * len(train)) if holdout < 1 else int(holdout)
    most = len(train) - len(np.unique(train.labels))
    if not 1 <= count <= most:
        raise UserError(
            f"data.holdout {holdout:.12g} would take {count} of the {len(train)} images of "
            f"{train.name}: it must take between 1 and {most}, so that every class keeps one."
        )
    return count


def _stratified(train: ImageSplit, count: int, split_seed: int) -> np.ndarray:
    """Sorted indices of `count` images, each class in proportion (largest remainder)."""
    sizes = np.bincount(train.labels, minlength=len(train.class_names))
    shares = sizes * (count / len(train))
    quota = np.minimum(np.floor(shares).astype(np.int64), np.maximum(sizes - 1, 0))
    while quota.sum() < count:
        short = np.where(quota < sizes - 1, shares - quota, -np.inf)
        quota[np.argmax(short)] += 1
    draw = uniforms(split_seed, 0, np.arange(len(train)), 1, HOLD_OUT)[:, 0]
    held = [
        members[np.argsort(draw[members], kind="stable")[: quota[label]]]
        for label, members in enumerate(_members(train))
    ]
    return np.sort(np.concatenate(held))


def _members(train: ImageSplit) -> list[np.ndarray]:
    """Indices of each class's images."""
    return [np.flatnonzero(train.labels == label) for label in range(len(train.class_names))]
