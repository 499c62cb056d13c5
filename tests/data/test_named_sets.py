"""The sets that users bring: miniature files in the true formats."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mixerkit.data.flowers import CLASS_NAMES
from mixerkit.data.sources import SOURCES, open_source
from mixerkit.errors import UserError

RNG = np.random.default_rng(0)


def photo(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value, 0, 0)).save(path)


def cifar_file(path: Path, labels: list[list[int]]) -> np.ndarray:
    """Records of `labels` bytes and 3072 random bytes; returns the pixels [N, 3072]."""
    pixels = RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    np.concatenate([np.array(labels, np.uint8), pixels], 1).tofile(path)
    return pixels


def make_cifar10(root: Path) -> np.ndarray:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n\n")
    pixels = [cifar_file(folder / f"data_batch_{i}.bin", [[i], [9]]) for i in range(1, 6)]
    cifar_file(folder / "test_batch.bin", [[0], [1], [2]])
    return np.concatenate(pixels)


def test_cifar10(tmp_path):
    pixels = make_cifar10(tmp_path)
    splits = open_source("cifar10", str(tmp_path))
    assert splits.train.labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert splits.test.labels.tolist() == [0, 1, 2] and splits.validation is None
    assert splits.train.class_names[8] == "ship"
    for image, plane in zip(splits.train.images, pixels, strict=True):
        assert image[3, 5].tolist() == [plane[c * 1024 + 3 * 32 + 5] for c in range(3)]


def test_cifar100_takes_the_fine_label(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("\n".join(f"name {i}" for i in range(100)))
    cifar_file(folder / "train.bin", [[11, 71], [3, 4]])
    cifar_file(folder / "test.bin", [[0, 99]])
    splits = open_source("cifar100", str(folder))
    assert splits.train.labels.tolist() == [71, 4] and splits.test.labels.tolist() == [99]
    assert splits.train.class_names[71] == "name 71"


def test_a_cut_cifar_file_is_named(tmp_path):
    make_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_3\.bin must be a whole number of records"):
        open_source("cifar10", str(tmp_path))


def make_flowers(folder: Path) -> None:
    for number in range(1, 7):
        photo(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[77, 1, 102, 77, 1, 102]], np.uint8)})
    sets = {"trnid": [[1, 2]], "valid": [[6]], "tstid": [[5, 4, 3]]}
    savemat(folder / "setid.mat", {key: np.array(ids, np.uint16) for key, ids in sets.items()})


def test_flowers102(tmp_path):
    make_flowers(tmp_path / "flowers102")
    splits = open_source("flowers102", str(tmp_path))
    assert len(set(CLASS_NAMES)) == 102
    assert splits.train.labels.tolist() == [76, 0]
    assert [splits.train.class_names[i] for i in (76, 0)] == ["passion flower", "pink primrose"]
    assert splits.validation.labels.tolist() == [101] and splits.test.labels.tolist() == [
        0,
        76,
        101,
    ]
    assert [path.name for path in splits.test.paths] == [f"image_0000{i}.jpg" for i in (5, 4, 3)]
    (tmp_path / "flowers102" / "jpg" / "image_00004.jpg").unlink()
    with pytest.raises(UserError, match=r"test: 1 of 3 files are missing.*image_00004\.jpg"):
        open_source("flowers102", str(tmp_path))


def test_a_broken_mat_file_is_named(tmp_path):
    make_flowers(tmp_path)
    (tmp_path / "setid.mat").write_bytes(b"MATLAB 5.0 " + bytes(200))
    with pytest.raises(UserError, match=r"setid\.mat"):
        open_source("flowers102", str(tmp_path))


def make_pets(folder: Path, trainval: str, test: str) -> None:
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "trainval.txt").write_text(trainval)
    (folder / "annotations" / "test.txt").write_text(test)
    for line in (trainval + test).splitlines():
        if line[:1].isalpha():
            photo(folder / "images" / f"{line.split()[0]}.jpg")


def test_pets(tmp_path):
    make_pets(
        tmp_path / "pets",
        "#Image CLASS-ID SPECIES BREED\nAbyssinian_100 1 1 1\namerican_bulldog_9 2 2 1\n",
        "american_bulldog_1 2 2 1\n",
    )
    splits = open_source("pets", str(tmp_path))
    assert splits.train.class_names == ("Abyssinian", "american bulldog")
    assert splits.train.labels.tolist() == [0, 1] and splits.test.labels.tolist() == [1]
    assert splits.test.paths[0].name == "american_bulldog_1.jpg"


@pytest.mark.parametrize(
    "lines, message",
    [
        ("cat_1 1 1\n", "line 1: expected 'NAME CLASS SPECIES BREED'"),
        ("cat_1 1 1 1\ndog_1 1 2 1\n", "class 1 is both 'cat' and 'dog'"),
        ("cat_1 1 1 1\ndog_1 3 2 1\n", "not numbered without gaps"),
        ("# nothing\n", "lists no image"),
    ],
)
def test_pets_lists_that_cannot_be(tmp_path, lines, message):
    make_pets(tmp_path, lines, "cat_2 1 1 1\n")
    with pytest.raises(UserError, match=message):
        open_source("pets", str(tmp_path))


def test_lists_that_are_not_text_are_named(tmp_path):
    make_pets(tmp_path, "cat_1 1 1 1\n", "cat_2 1 1 1\n")
    (tmp_path / "annotations" / "test.txt").write_bytes(b"caf\xe9_1 1 1 1\n")
    with pytest.raises(UserError, match=r"test\.txt is not a text file in UTF-8"):
        open_source("pets", str(tmp_path))


@pytest.mark.parametrize(
    "numbers", [np.array(["x", "y"]), np.array([1.5, 2]), np.ones((2, 2)), [np.nan, 1], [-1, 2]]
)
def test_a_mat_file_of_another_layout_is_named(tmp_path, numbers):
    make_flowers(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": numbers})
    with pytest.raises(UserError, match=r"imagelabels\.mat: 'labels' must be a row of whole num"):
        open_source("flowers102", str(tmp_path))


WNIDS = {"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n03126707": "crane"}


def make_imagenet(folder: Path) -> None:
    for wnid in WNIDS:
        for i in range(2):
            photo(folder / "train" / wnid / f"{wnid}_{i}.JPEG")


def make_devkit(folder: Path, truth: list[int]) -> None:
    """Numbers in another order than the WordNet numbers', as in the real devkit."""
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(i, wnid, WNIDS[wnid], 0) for i, wnid in enumerate(reversed(WNIDS), 1)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, kinds)[:, None]})
    lines = "".join(f"{number}\n" for number in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


def test_imagenet_with_class_folders(tmp_path):
    make_imagenet(tmp_path / "imagenet")
    for wnid in WNIDS:
        photo(tmp_path / "imagenet" / "val" / wnid / "ILSVRC2012_val_00000001.JPEG")
    splits = open_source("imagenet", str(tmp_path))
    assert splits.train.class_names == ("tench", "crane (bird)", "crane (machine)")
    assert splits.validation is None
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.labels.tolist() == [0, 1, 2]


def test_imagenet_with_a_flat_validation_folder_and_the_devkit(tmp_path):
    make_imagenet(tmp_path)
    for i in (2, 1, 3):
        photo(tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.JPEG")
    with pytest.raises(UserError, match=r"no sub-folders, so .*ground_truth\.txt"):
        open_source("imagenet", str(tmp_path))
    make_devkit(tmp_path, [3, 1, 1])  # the devkit's 3 is the first WordNet number
    splits = open_source("imagenet", str(tmp_path))
    assert splits.test.labels.tolist() == [0, 2, 2]
    assert [path.name[-6] for path in splits.test.paths] == ["1", "2", "3"]
    assert splits.train.class_names == ("tench", "crane (bird)", "crane (machine)")


def test_imagenet_classes_without_a_name_of_their_own_take_the_devkit_s(tmp_path, monkeypatch):
    """As those of ImageNet-21k: two of one name keep their numbers; without words, a number."""
    words = {"n02012849": "crane", "n03126707": "crane", "n00000001": "entity"}
    monkeypatch.setattr("tests.data.test_named_sets.WNIDS", words)
    monkeypatch.setattr("mixerkit.data.imagenet.imagenet_names", dict)
    make_imagenet(tmp_path)
    for wnid in (*words, "n00000002"):
        for split in ("train", "val"):
            photo(tmp_path / split / wnid / "1.JPEG")
    make_devkit(tmp_path, [])
    assert open_source("imagenet", str(tmp_path)).train.class_names == (
        "entity", "n00000002", "crane (n02012849)", "crane (n03126707)",
    )  # fmt: skip


def test_imagenet_with_other_classes_in_val(tmp_path):
    make_imagenet(tmp_path)
    for wnid in ("n01440764", "n02012849", "n09999999"):
        photo(tmp_path / "val" / wnid / "1.JPEG")
    with pytest.raises(UserError, match=r"only in val/: n09999999; only in train/: n03126707"):
        open_source("imagenet", str(tmp_path))


def test_a_broken_devkit_is_named(tmp_path):
    make_imagenet(tmp_path)
    photo(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    make_devkit(tmp_path, [3])
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    for content, message in (
        (b"x\n", "line 1: expected a class number, found 'x'"),
        (b"\xff\n", "not a text file"),
    ):
        truth.write_bytes(content)
        with pytest.raises(UserError, match=rf"ground_truth\.txt.*{message}"):
            open_source("imagenet", str(tmp_path))
    for table in (np.arange(3), np.array([("a",)], [("WNID", "O")])):
        savemat(data / "meta.mat", {"synsets": table})
        with pytest.raises(UserError, match=r"meta\.mat: expected a table 'synsets'"):
            open_source("imagenet", str(tmp_path))


def test_imagenet_with_a_flat_validation_folder_of_another_length(tmp_path):
    make_imagenet(tmp_path)
    photo(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    make_devkit(tmp_path, [3, 1])
    with pytest.raises(UserError, match=r"val has 1 images, .* 2 lines"):
        open_source("imagenet", str(tmp_path))


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.open])
def test_an_absent_set_says_what_is_expected_where(tmp_path, name):
    with pytest.raises(UserError) as caught:
        open_source(name, str(tmp_path))
    for words in (*SOURCES[name].expected, SOURCES[name].folder, "MIXERKIT_DATA", str(tmp_path)):
        assert words in str(caught.value)


def test_imagenet_s_archives_of_classes_are_to_be_unpacked(tmp_path):
    make_imagenet(tmp_path)
    (tmp_path / "val").mkdir()
    (tmp_path / "train" / "n01440764.tar").touch()
    with pytest.raises(UserError, match=r"holds 1 archives: unpack .*n01440764\.tar into .*take"):
        open_source("imagenet", str(tmp_path))


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.open])
def test_a_set_that_is_not_there_says_what_is_to_be_put_where(tmp_path, name):
    source = SOURCES[name]
    with pytest.raises(UserError) as caught:
        open_source(name, str(tmp_path))
    said = str(caught.value)
    assert f"DATA/{source.folder} that holds {', '.join(source.expected)}," in said
    assert said.endswith(f"It is not fetched by itself; to be had from {source.obtain}.")
    assert "unpack" in source.obtain and " is there, without" not in said


def test_a_part_of_a_set_says_what_is_missing(tmp_path):
    make_imagenet(tmp_path / "imagenet")
    with pytest.raises(UserError, match=r"imagenet is there, without val\. .*agree to its terms"):
        open_source("imagenet", str(tmp_path))
