"""ImageNet-V2: folders by class number, which as text are in another order; nothing to train on."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mixerkit.data.sources import open_source
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_classes
from mixerkit.spec.recipes import recipe
from mixerkit.training.setup import open_data

FOLDER = "imagenetv2-matched-frequency-format-val"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images of class 10, one of every other; all are alike."""
    Image.new("RGB", (2, 2)).save(tmp_path / "one.jpeg")
    content = (tmp_path / "one.jpeg").read_bytes()
    for number in range(1000):
        place = tmp_path / FOLDER / str(number)
        place.mkdir(parents=True)
        for name in ("b", "a") if number == 10 else ("c",):
            (place / f"{name}.jpeg").write_bytes(content)
    return tmp_path / FOLDER


def test_images_and_classes_in_the_order_of_the_numbers(folder, tmp_path):
    for root in (tmp_path, folder):
        splits = open_source("imagenet-v2", str(root))
        test = splits.test
        assert test.class_names == splits.train.class_names == imagenet_classes()
        assert test.labels.tolist() == [*range(10), 10, 10, *range(11, 1000)]
        assert [int(path.parent.name) for path in test.paths] == test.labels.tolist()
        assert [path.name for path in test.paths[9:13]] == ["c.jpeg", "a.jpeg", "b.jpeg", "c.jpeg"]


def test_nothing_to_train_on(folder):
    splits = open_source("imagenet-v2", str(folder))
    assert len(splits.train) == 0 and splits.validation is None
    base = recipe("fashion-demo")
    for holdout in (0, 0.1):
        data = replace(base.data, source="imagenet-v2", root=str(folder), holdout=holdout)
        with pytest.raises(UserError, match="imagenet-v2 has no training images"):
            open_data(replace(base, data=data))


def test_folders_that_are_missing_or_others_are_named(folder):
    for number in (7, 70):
        (folder / str(number)).rename(folder / f"{number:04}")
    with pytest.raises(UserError, match=r"missing: 7, 70; not one of them: 0007, 0070\. Unpack"):
        open_source("imagenet-v2", str(folder))


def test_where_it_is_to_be_had(folder, tmp_path):
    (folder / "999").rename(folder / "1000")
    wanted = rf"{FOLDER} is there, without 999.* imagenetv2-matched-frequency\.tar\.gz"
    with pytest.raises(UserError, match=wanted):
        open_source("imagenet-v2", str(tmp_path))
