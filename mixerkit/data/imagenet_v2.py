"""ImageNet-V2 (Recht et al. 2019, arXiv 1902.10811): new test images for ImageNet's classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mixerkit.data.folder import LeftOut, open_classes
from mixerkit.data.splits import Splits, for_testing
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_classes

SHOWN = 5


def open_imagenet_v2(folder: Path) -> Splits:
    """A test split and no training images: the paper's are the 10,000 of "matched frequency".

    Class folders are named 0 to 999, ImageNet-1k's class numbers; classes and images are given in
    the order of these numbers, not of the names as text.
    """
    left_out = LeftOut()
    found = open_classes(folder, "imagenet-v2", left_out)
    _check_numbers(folder, found.class_names)
    labels = np.array([int(name) for name in found.class_names], np.int64)[found.labels]
    test = replace(found, class_names=imagenet_classes(), labels=labels)
    ordered = test.subset(np.argsort(labels, kind="stable"))
    return for_testing(ordered, f"imagenet-v2: {folder}{left_out.note()}")


def _check_numbers(folder: Path, names: tuple[str, ...]) -> None:
    """`UserError` that lists class folders that are missing, and those that are none."""
    wanted = [str(number) for number in range(len(imagenet_classes()))]
    missing = [name for name in wanted if name not in set(names)]
    more = sorted(set(names) - set(wanted))
    if missing or more:
        lists = [
            f"{what} {', '.join(some[:SHOWN])}{', …' if len(some) > SHOWN else ''}"
            for what, some in (("missing:", missing), ("not one of them:", more))
            if some
        ]
        raise UserError(
            f"{folder} must hold a folder for each of ImageNet's classes by number, 0 to "
            f"{wanted[-1]}; {'; '.join(lists)}. Unpack the archive again."
        )
