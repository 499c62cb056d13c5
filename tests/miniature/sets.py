"""The five sets of the paper's "Avg 5" in their true formats, small and made of stripes."""

from collections.abc import Callable
from pathlib import Path

from mixerkit.data.sources import SOURCES
from tests.miniature.amount import Amount
from tests.miniature.cifar import write_cifar10, write_cifar100
from tests.miniature.flowers import write_flowers102
from tests.miniature.imagenet import write_imagenet
from tests.miniature.pets import write_pets

WRITERS: dict[str, Callable[[Path, Amount], None]] = {
    "imagenet": write_imagenet,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "pets": write_pets,
    "flowers102": write_flowers102,
}
"""By the name of the source; ImageNet's has ReaL's labels with it."""


def write_sets(root: Path, amount: Amount) -> None:
    """All of them, each in the folder below `root` where its source is looked for."""
    for name, write in WRITERS.items():
        write(root / SOURCES[name].folder, amount)
