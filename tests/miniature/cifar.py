"""CIFAR-10 and CIFAR-100 in the form of their binary version."""

from pathlib import Path

import numpy as np

from mixerkit.data.cifar import CIFAR_10, CIFAR_100
from tests.miniature.amount import Amount
from tests.miniature.pictures import pictures

SIDE = 32
NAMES_10 = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
COARSE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
COARSE_OF = {fine: label for label, names in enumerate(COARSE.values()) for fine in names.split()}
NAMES_100 = sorted(COARSE_OF)


def write_cifar10(folder: Path, amount: Amount) -> None:
    folder.mkdir(parents=True)
    _write_names(folder / CIFAR_10.names_file, NAMES_10)
    train, test = amount.splits(len(NAMES_10))
    parts = [*np.array_split(train, len(CIFAR_10.train_files)), test]
    for number, name in enumerate((*CIFAR_10.train_files, CIFAR_10.test_file)):
        _write(folder / name, parts[number][:, None], amount.seed, number)


def write_cifar100(folder: Path, amount: Amount) -> None:
    folder.mkdir(parents=True)
    _write_names(folder / CIFAR_100.names_file, NAMES_100)
    _write_names(folder / "coarse_label_names.txt", list(COARSE))
    coarse_of = np.array([COARSE_OF[name] for name in NAMES_100])
    for number, fine in enumerate(amount.splits(len(NAMES_100))):
        name = (*CIFAR_100.train_files, CIFAR_100.test_file)[number]
        _write(folder / name, np.stack([coarse_of[fine], fine], 1), amount.seed, number)


def _write(path: Path, labels: np.ndarray, *seed: int) -> None:
    """Records of the bytes of `labels`, [N, 1 or 2], and of the red, green and blue plane."""
    drawn_NHWI = pictures(labels[:, -1], SIDE, *seed)
    planes = drawn_NHWI.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    np.concatenate([labels.astype(np.uint8), planes], 1).tofile(path)


def _write_names(path: Path, names: list[str]) -> None:
    path.write_text("\n".join(names) + "\n\n", encoding="utf-8")
