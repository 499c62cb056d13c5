"""The five sets in miniature are what the readers take for the real ones, and can be learned."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixerkit.data.flowers import CLASS_NAMES
from mixerkit.data.sources import ImageSplit, Splits, open_source
from mixerkit.spec.imagenet import imagenet_classes
from tests.miniature.__main__ import main
from tests.miniature.amount import Amount
from tests.miniature.cifar import COARSE_OF, NAMES_10, NAMES_100
from tests.miniature.imagenet import class_numbers, write_imagenet
from tests.miniature.pets import BREEDS
from tests.miniature.sets import WRITERS, write_sets

AMOUNT = Amount(classes=6, train=15, test=5, side=32, seed=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("miniature")
    write_sets(folder, AMOUNT)
    return folder


def per_class(split: ImageSplit) -> list[int]:
    return np.bincount(split.labels, minlength=len(split.class_names)).tolist()


def expected_names(source: str) -> list[str]:
    of_imagenet = [imagenet_classes()[number] for number in class_numbers(AMOUNT)]
    breeds = [name.replace("_", " ") for name in BREEDS[:6]]
    return {
        "imagenet": of_imagenet,
        "cifar10": NAMES_10,
        "cifar100": NAMES_100,
        "pets": breeds,
        "flowers102": list(CLASS_NAMES),
    }[source]


@pytest.mark.parametrize("source", WRITERS)
def test_counts_and_names(root, source):
    splits = open_source(source, str(root))
    names = expected_names(source)
    rest = [0] * (len(names) - 6)
    assert list(splits.train.class_names) == list(splits.test.class_names) == names
    assert per_class(splits.train) == [15] * 6 + rest
    assert per_class(splits.test) == [5] * 6 + rest
    validation = splits.validation and per_class(splits.validation)
    assert validation == ([5] * 6 + rest if source == "flowers102" else None)
    assert "left out" not in splits.origin


def small(split: ImageSplit) -> np.ndarray:
    """Pixels [N, 3072], as a reader of the files finds them."""
    if split.images is not None:
        return split.images.reshape(len(split), -1).astype(float)
    images = [Image.open(path).convert("RGB").resize((32, 32)) for path in split.paths]
    return np.stack([np.asarray(image, float).reshape(-1) for image in images])


def nearest_mean_colour(splits: Splits) -> float:
    """Accuracy on the test split of the class whose mean colour is nearest."""
    train, test = (
        small(split).reshape(len(split), -1, 3).mean(1) for split in (splits.train, splits.test)
    )
    means = np.stack([train[splits.train.labels == label].mean(0) for label in range(6)])
    nearest = np.linalg.norm(test[:, None] - means, axis=2).argmin(1)
    return float((nearest == splits.test.labels).mean())


@pytest.mark.parametrize("source", WRITERS)
def test_classes_can_be_learned_and_are_not_given_away(root, source):
    splits = open_source(source, str(root))
    assert nearest_mean_colour(splits) > 0.8
    images = small(splits.train)
    alike = [np.ptp(images[splits.train.labels == label], axis=0).mean() for label in range(6)]
    assert min(alike) > 50  # no two images of a class are nearly the same


def test_the_command(tmp_path, monkeypatch):
    few = ["--classes", "3", "--train", "2", "--test", "1", "--side", "8"]
    monkeypatch.setattr("sys.argv", ["miniature", str(tmp_path), *few])
    main()
    assert [len(open_source(name, str(tmp_path)).train) for name in WRITERS] == [6] * 5


def test_all_classes_are_told_apart_by_their_files(tmp_path):
    """Sets have no more classes than they have."""
    write_sets(tmp_path, Amount(classes=200, train=1, test=1, side=8))
    found = {name: open_source(name, str(tmp_path)).train.labels for name in WRITERS}
    assert {name: len(set(labels.tolist())) for name, labels in found.items()} == {
        "imagenet": 200, "cifar10": 10, "cifar100": 100, "pets": 37, "flowers102": 102,
    }  # fmt: skip


def test_the_same_images_for_the_same_seed(root, tmp_path):
    for name in ("cifar10", "pets"):
        WRITERS[name](tmp_path / name, AMOUNT)
        first, again = (open_source(name, str(place)).train for place in (root, tmp_path / name))
        np.testing.assert_array_equal(small(first), small(again))
    WRITERS["pets"](tmp_path / "other", Amount(**vars(AMOUNT) | {"seed": 2}))
    other = open_source("pets", str(tmp_path / "other")).train
    assert not np.array_equal(small(other), small(open_source("pets", str(root)).train))


def test_imagenet_in_class_folders_is_imagenet_with_the_devkit(root, tmp_path):
    write_imagenet(tmp_path / "imagenet", AMOUNT, flat=False)
    labels = [
        {path.name: label for path, label in zip(test.paths, test.labels.tolist(), strict=True)}
        for test in (open_source("imagenet", str(place)).test for place in (root, tmp_path))
    ]
    assert labels[0] == labels[1]


def test_cifar_100_has_five_fine_classes_to_a_coarse_one(root):
    assert np.bincount(list(COARSE_OF.values())).tolist() == [5] * 20
    content = np.fromfile(root / "cifar-100-binary" / "train.bin", np.uint8).reshape(-1, 3074)
    assert all(COARSE_OF[NAMES_100[fine]] == coarse for coarse, fine in content[:, :2])
