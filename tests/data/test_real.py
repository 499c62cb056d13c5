"""ReaL's labels are found by an image's name, in class folders and without, and held against
ImageNet's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixerkit.data.real import real_file, real_labels
from mixerkit.data.sources import ImageSplit, open_source
from mixerkit.errors import UserError
from mixerkit.spec.imagenet import imagenet_classes
from tests.miniature.amount import Amount
from tests.miniature.imagenet import class_numbers, write_imagenet

NOTHING: list[list[int]] = [[]] * 50_000
AMOUNT = Amount(classes=5, train=1, test=8, side=8)


def split_of(labels: dict[int, int], names: tuple[str, ...] = imagenet_classes()) -> ImageSplit:
    """Images by their number, with a label each."""
    paths = tuple(Path("val") / f"ILSVRC2012_val_{number:08}.JPEG" for number in labels)
    return ImageSplit("imagenet val", names, np.array([*labels.values()]), None, paths)


def file_of(folder: Path, sets: dict[int, list[int]]) -> Path:
    """`real.json` with the sets of a few images."""
    content = [sets.get(number, []) for number in range(1, 50_001)]
    (folder / "real.json").write_text(json.dumps(content))
    return folder / "real.json"


def test_sets_follow_the_names_whatever_the_order(tmp_path):
    file = file_of(tmp_path, {2: [970, 795], 3: [230, 231], 50_000: [999, 0]})
    split = split_of({50_000: 999, 3: 230, 1: 65, 2: 970})
    assert real_labels(split, file) == ({999, 0}, {230, 231}, set(), {970, 795})


def test_a_known_beginning_of_the_published_file():
    """ImageNet's own labels of the first images, and what timm ships of ReaL's file."""
    timm = pytest.importorskip("timm")
    file = Path(timm.__file__).parent / "data" / "_info" / "imagenet_real_labels.json"
    own = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286]
    sets = real_labels(split_of(dict(enumerate(own, 1))), file)
    assert sets[:3] == (set(), {970, 795}, {230, 231}) and sets[7] == {700}
    assert sum(label in found for label, found in zip(own, sets, strict=True)) == 10
    all_tench = split_of(dict.fromkeys(range(1, 50_001), 0))
    with pytest.raises(UserError, match=r"own label for only \d\d of 46,837 images"):
        real_labels(all_tench, file)


@pytest.mark.parametrize("flat", [True, False])
def test_miniature_imagenet(tmp_path, flat):
    """With some of the classes; of ten images one has no label, one two, one another's."""
    write_imagenet(tmp_path, AMOUNT, flat)
    test = open_source("imagenet", str(tmp_path)).test
    assert real_file(test) == tmp_path / "real.json"
    sets = real_labels(test, real_file(test))
    assert sorted(test.paths) == list(test.paths) or not flat
    for path, label, found in zip(test.paths, test.labels.tolist(), sets, strict=True):
        place = (int(path.stem[-8:]) - 1) % 10
        other = (label + 1) % 5
        assert found == {3: set(), 6: {label, other}, 9: {other}}.get(place, {label})
    folders = {path.parent.name for path in test.paths}
    assert len(folders) == (1 if flat else 5)


def test_labels_of_classes_that_the_split_does_not_have_are_dropped(tmp_path):
    file = file_of(tmp_path, {1: [3, 281], 2: [281], 3: [4, 3]})
    names = (imagenet_classes()[4], imagenet_classes()[3])
    assert real_labels(split_of({1: 1, 2: 1, 3: 0}, names), file) == ({1}, set(), {0, 1})
    numbers = ("n01491361", "n01494475")  # what 3 and 4 are called in WordNet
    assert real_labels(split_of({1: 0, 3: 1}, numbers), file) == ({0}, {0, 1})


@pytest.mark.parametrize(
    "content, message",
    [
        ("[[1], ", r"50,000 lists of class numbers from 0 to 999, but it is not JSON"),
        (b"\xff\xfe[", "it is not JSON"),
        ("{}", "found an object"),
        ("3", "found the number 3"),
        ([[]] * 49_999, "found a list of 49,999"),
        ([*NOTHING, []], "found a list of 50,001"),
        ([*NOTHING[:-1], 5], "image 50,000 has the number 5 in place of a list"),
        ([[1], None, *NOTHING[2:]], "image 2 has null in place of a list"),
        ([["1"], *NOTHING[1:]], "image 1 has a text in place of a class number"),
        ([[1.0], *NOTHING[1:]], r"image 1 has the number 1\.0 in place of a class number"),
        ([[True], *NOTHING[1:]], "image 1 has true or false in place of a class number"),
        ([[[1]], *NOTHING[1:]], "image 1 has a list in place of a class number"),
        ([[7, 1000], *NOTHING[1:]], "image 1 has the class number 1000"),
        ([[-1], *NOTHING[1:]], "image 1 has the class number -1"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    file = tmp_path / "real.json"
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(UserError, match=rf"real\.json must be .*{message}.*reassessed-imagenet"):
        real_labels(split_of({1: 0}), file)


def test_a_missing_file_says_where_it_is_to_be_had(tmp_path):
    wanted = r"needs the file .*real\.json, which is not there: .*google-research/reassessed"
    with pytest.raises(UserError, match=wanted):
        real_labels(split_of({1: 0}), tmp_path / "real.json")


def test_other_classes_are_named(tmp_path):
    split = split_of({1: 0}, ("tench", "my cat", "n09999999"))
    with pytest.raises(UserError, match="has others: my cat, n09999999"):
        real_labels(split, file_of(tmp_path, {}))


def test_images_under_other_names_are_refused(tmp_path):
    file = file_of(tmp_path, {})
    for name in ("1.JPEG", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00050001.JPEG"):
        with pytest.raises(UserError, match=rf"those of imagenet val are others, found .*{name}"):
            real_labels(replace(split_of({1: 0}), paths=(Path(name),)), file)
    in_memory = replace(split_of({1: 0}), paths=(), images=np.zeros((1, 2, 2, 3), np.uint8))
    for act in (lambda: real_labels(in_memory, file), lambda: real_file(in_memory)):
        with pytest.raises(UserError, match="knows images by their names"):
            act()


def test_images_without_any_label_are_refused(tmp_path):
    file = file_of(tmp_path, {4: [1]})
    with pytest.raises(UserError, match=r"no label for any of the 2 images of imagenet val"):
        real_labels(split_of({1: 0, 2: 1}), file)
    assert real_labels(split_of({1: 0, 4: 1}), file) == (set(), {1})


def test_another_order_of_images_or_classes_is_refused(tmp_path):
    """Nine in ten images of the published file have their own label, shuffled almost none."""
    write_imagenet(tmp_path, Amount(classes=10, train=1, test=8, side=8))
    test = open_source("imagenet", str(tmp_path)).test
    sets = json.loads((tmp_path / "real.json").read_text())
    numbers = class_numbers(Amount(classes=10))
    backwards = dict(zip(numbers, reversed(numbers), strict=True))
    other_images = [*sets[40:80], *sets[:40], *sets[80:]]
    other_classes = [[backwards[label] for label in labels] for labels in sets]
    for wrong in (other_images, other_classes):
        (tmp_path / "real.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"own label for only .* in another order there"):
            real_labels(test, tmp_path / "real.json")
