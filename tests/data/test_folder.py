"""A folder of images: which files become which items, and what is refused."""

import os
from pathlib import Path

import pytest

from mixerkit.data.sources import open_source, opened
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Data


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def items(split) -> list[tuple[str, str]]:
    return [
        (split.class_names[label], path.name)
        for label, path in zip(split.labels, split.paths, strict=True)
    ]


def test_classes_and_files_in_the_order_of_their_names(tmp_path):
    put(tmp_path, "dog/b.JPG", "dog/a.png", "Cat/x.webp", "ant/deep/er/2.gif", "ant/1.tiff")
    splits = open_source(str(tmp_path))
    assert splits.validation is None and splits.test is None
    assert splits.train.class_names == ("Cat", "ant", "dog")
    assert items(splits.train) == [
        ("Cat", "x.webp"), ("ant", "1.tiff"), ("ant", "2.gif"), ("dog", "a.png"), ("dog", "b.JPG"),
    ]  # fmt: skip
    assert splits.origin == str(tmp_path) and splits.train.images is None


def test_what_is_left_out_is_counted_and_hidden_files_are_not(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png", "a/.DS_Store", ".git/x.png", "a/.x/y.png")
    assert open_source(str(tmp_path)).origin == str(tmp_path)
    put(tmp_path, "notes.txt")
    assert open_source(str(tmp_path)).origin.endswith(
        " (1 file that is not an image of a class was left out: notes.txt)"
    )
    put(tmp_path, "stray.png", "a/list.csv")
    splits = open_source(str(tmp_path))
    assert "3 files that are not images of a class were left out" in splits.origin
    assert len(splits.train) == 2


def test_split_folders(tmp_path):
    for name in ("train", "val", "test"):
        put(tmp_path, f"{name}/a/{name}.png", f"{name}/b/{name}.png")
    splits = open_source(str(tmp_path))
    for split, name in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        assert items(split) == [("a", f"{name}.png"), ("b", f"{name}.png")]


@pytest.mark.parametrize("names", [("test",), ("val",), ("val", "test")])
def test_images_to_measure_on_need_no_train(tmp_path, names):
    for name in names:
        put(tmp_path, f"{name}/a/{name}.png", f"{name}/b/{name}.png")
    splits = open_source(str(tmp_path))
    assert len(splits.train) == 0 and splits.train.class_names == ("a", "b")
    for split, name in ((splits.validation, "val"), (splits.test, "test")):
        assert (split is not None) == (name in names)
        assert not split or items(split) == [("a", f"{name}.png"), ("b", f"{name}.png")]
    joined = opened(Data(str(tmp_path), join_validation=True))
    assert len(joined.train) == 0 and (joined.test is None) == (splits.test is None)


def test_classes_may_be_called_val_and_test(tmp_path):
    put(tmp_path, "val/1.png", "test/2.png", "test/deep/3.png")
    assert open_source(str(tmp_path)).train.class_names == ("test", "val")


def test_chosen_classes_alone_must_be_the_same(tmp_path):
    """Labels of the other splits are those of train/, whatever these have besides."""
    put(tmp_path, *(f"train/{name}/1.png" for name in "bcd"))
    put(tmp_path, *(f"test/{name}/{name}.png" for name in "acd"))
    for chosen in (("c", "d"), ("d,c",)):
        splits = opened(Data(str(tmp_path), classes=chosen))
        assert splits.test.class_names == ("c", "d")
        assert items(splits.test) == [("c", "c.png"), ("d", "d.png")]
    for chosen, says in (("a", "only in test/: a"), ("b", "only in train/: b")):
        with pytest.raises(UserError, match=says):
            opened(Data(str(tmp_path), classes=("c", chosen)))
    with pytest.raises(UserError, match="has no class 'x'"):
        opened(Data(str(tmp_path), classes=("c", "x")))


def test_classes_may_have_sub_folders(tmp_path):
    put(tmp_path, "cat/wild/1.png", "cat/2.png", "dog/wild/3.png", "owl/barn/4.png")
    assert open_source(str(tmp_path)).train.class_names == ("cat", "dog", "owl")


def test_a_class_may_be_called_train(tmp_path):
    put(tmp_path, "train/1.png", "plane/2.png")
    assert items(open_source(str(tmp_path)).train) == [("plane", "2.png"), ("train", "1.png")]


REFUSED = {
    "no class": ((), "at least two sub-folders.*no sub-folder"),
    "images only": (("1.png",), "at least two sub-folders.*no sub-folder"),
    "one class": (("cat/1.png",), "at least two sub-folders.*only 'cat'"),
    "empty class": (("cat/1.png", "dog/x.txt"), "class folder .*dog holds no image"),
    "more in val": (
        ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "val/c/1.png"),
        "same classes; only in val/: c",
    ),
    "less in val": (
        ("train/a/1.png", "train/b/1.png", "train/c/1.png", "val/a/1.png", "val/d/1.png"),
        "same classes; only in val/: d; only in train/: b, c",
    ),
    "one folder too high": (
        ("validation/a/1.png", "validation/b/1.png"), "only 'validation'.*Give .*/validation",
    ),
    "less in test alone": (
        ("val/a/1.png", "val/b/1.png", "val/c/1.png", "test/a/1.png", "test/b/1.png"),
        r"val/ and test/ must have the same classes; only in val/: c\.(.|\n)*data.classes a b",
    ),
    "another split": (
        ("train/a/1.png", "train/b/1.png", "valid/a/1.png", "valid/b/1.png"),
        "only val/ and test/ are expected beside it; found valid",
    ),
}  # fmt: skip

for first, second in (
    ("Train", "Test"), ("training", "validation"), ("test", "valid"), ("set 1", "set 2"),
):  # fmt: skip
    names = tuple(f"{folder}/{kind}/1.png" for folder in (first, second) for kind in ("a", "b"))
    REFUSED[f"{first} and {second}"] = (names, "look like splits.*Rename splits to train/ and val/")


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    names, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        open_source(str(put(tmp_path, *names)))


def test_a_source_that_is_nothing(tmp_path):
    with pytest.raises(UserError, match=r"Did you mean 'fashion-mnist'\?.*Named sets: fashion"):
        open_source("fashion-mnst")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        open_source(str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"data\.root must be a folder"):
        open_source("cifar10", str(tmp_path / "gone"))


def test_a_folder_below_the_data_folder(tmp_path, monkeypatch):
    put(tmp_path, "my-photos/a/1.png", "my-photos/b/1.png")
    assert len(open_source("my-photos", str(tmp_path)).train) == 2
    monkeypatch.setenv("MIXERKIT_DATA", str(tmp_path))
    assert len(open_source("my-photos").train) == 2


def test_the_users_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path, "photos/a/1.png", "photos/b/1.png")
    assert open_source("~/photos").origin == str(tmp_path / "photos")
    assert len(open_source("photos", "~").train) == 2
    with pytest.raises(UserError, match=r"what ~ stands for in ~no such user/photos"):
        open_source("~no such user/photos")


def test_a_folder_with_the_name_of_a_named_set(tmp_path, monkeypatch, samples):
    monkeypatch.chdir(put(tmp_path, "pets/a/1.png", "pets/b/1.png", "fashion-mnist/x.txt"))
    with pytest.raises(UserError, match=r"pets was not found.*Not used: .* written \./pets\."):
        open_source("pets")
    assert len(open_source("./pets").train) == 2
    origin = open_source("fashion-mnist", str(samples)).origin
    assert origin.endswith(
        "not used: the folder fashion-mnist here, which as a data source is written ./fashion-mnist"
    )
    monkeypatch.chdir(samples)
    assert "not used" not in open_source("fashion-mnist", ".").origin


def test_a_link_to_a_class_that_is_not_there_is_refused(tmp_path):
    put(tmp_path, "ant/1.png", "cat/1.png")
    (tmp_path / "dog").symlink_to("/a/disk/that/is/not/there")
    with pytest.raises(UserError, match="dog is a link that leads nowhere"):
        open_source(str(tmp_path))


def test_images_may_be_links_also_to_nothing(tmp_path):
    """Which of them can be used is found when they are read."""
    put(tmp_path, "ant/1.png", "cat/1.png")
    (tmp_path / "ant" / "2.png").symlink_to("nowhere")
    (tmp_path / "ant" / "3.png").symlink_to("3.png")
    assert len(open_source(str(tmp_path)).train) == 4


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    put(tmp_path, "ant/1.png", "ant/more/2.png", "cat/1.png")
    healthy = os.scandir

    def scandir(path):
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return healthy(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"Cannot read the folder .*more: Permission denied"):
        open_source(str(tmp_path))
