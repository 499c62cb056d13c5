"""Folders of tar archives: the same images as in a folder, in whatever form they are packed."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.shards import listed
from mixerkit.data.sources import hold_out, open_source
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment
from tests.data.test_tar import tar_of

PREPROCESS = Preprocess(8, 3, resize="squash")
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 5 images in each of three classes."""
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            pixels = draw.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def packed(photos: Path, form: str) -> Path:
    """The same images in archives, in the same order."""
    folder = photos.parent / form
    folder.mkdir()
    files = sorted(photos.rglob("*.png"))
    if form == "class to an archive":
        for name in CLASSES:
            inside = {path.name: path.read_bytes() for path in files if path.parent.name == name}
            tar_of(folder / f"{name}.tar", inside)
    elif form == "folders":
        named = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}
        tar_of(folder / "all.tar", named)
    else:
        (folder / "classes.txt").write_text("\n".join(CLASSES))
        for number, first in enumerate(range(0, 15, 4)):
            inside = {}
            for at, path in enumerate(files[first : first + 4], first):
                inside[f"{at:05}.png"] = path.read_bytes()
                inside[f"{at:05}.cls"] = str(CLASSES.index(path.parent.name)).encode()
            tar_of(folder / f"train-{number:04}.tar", inside)
    return folder


FORMS = ("class to an archive", "folders", "webdataset")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [1, 2])
def test_archives_give_what_the_folder_gives(photos, form, workers):
    wanted, found = open_source(str(photos)).train, open_source(str(packed(photos, form))).train
    assert found.class_names == CLASSES
    np.testing.assert_array_equal(found.labels, wanted.labels)
    options = {"batch_size": 4, "seed": 3, "workers": workers, "memory": 0}
    batches = [
        list(TrainLoader(one, PREPROCESS, Augment(shift=1), **options).epoch(2))
        for one in (wanted, found)
    ]
    for a, b in zip(*batches, strict=True):
        assert (a.images == b.images).all() and (a.targets == b.targets).all()


def test_held_out_images_are_the_same_and_can_be_named(photos):
    wanted, found = (
        hold_out(open_source(str(folder)), 0.4, 1).validation
        for folder in (photos, packed(photos, "folders"))
    )
    loaders = [EvaluationLoader(one, PREPROCESS, batch_size=6) for one in (wanted, found)]
    for (a, labels), (b, others) in zip(*loaders, strict=True):
        assert (a == b).all() and (labels == others).all()
    assert found.place(0).endswith(f"all.tar: {wanted.paths[0].relative_to(photos)}")
    assert [str(one) for one in found.paths[1:3]] == [str(found.paths[i]) for i in (1, 2)]


def test_splits_by_the_names_of_archives_or_of_folders(photos):
    by_name, by_folder = photos.parent / "by-name", photos.parent / "by-folder"
    inside = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(photos.rglob("*.png"))}
    for split, other in (("train", "train"), ("validation", "val"), ("test", "test")):
        for folder in (by_name, by_folder / other):
            folder.mkdir(parents=True, exist_ok=True)
        tar_of(by_name / f"birds-{split}-0000.tar", inside)
        tar_of(by_folder / other / "0000.tar", inside)
    for folder in (by_name, by_folder):
        splits = open_source(str(folder))
        assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [15, 15, 15]
        assert splits.origin.endswith("3 archives")


def test_an_archive_beside_what_was_unpacked_from_it_is_not_meant(photos):
    tar_of(photos / "photos.tar", {"cat/1.png": b"x"})
    found = open_source(str(photos))
    assert len(found.train) == 15 and "1 file that is not an image" in found.origin


def test_a_broken_image_is_left_out_by_its_name(photos):
    files = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(photos.rglob("*.png"))}
    files["dog/2.png"] = files["dog/2.png"][:60]
    (photos.parent / "shards").mkdir()
    tar_of(photos.parent / "shards" / "all.tar", files)
    split = open_source(str(photos.parent / "shards")).train
    loader = EvaluationLoader(split, PREPROCESS, batch_size=4, skip_broken=True)
    assert sum(len(labels) for _, labels in loader) == 14
    (broken,) = loader.unreadable
    assert broken.row()["file"].endswith("all.tar: dog/2.png") and broken.index == 7


def test_the_list_is_kept_and_belongs_to_the_archive_as_it_is(photos, monkeypatch):
    archive = packed(photos, "folders") / "all.tar"
    first = listed(archive)
    monkeypatch.setattr("mixerkit.data.shards.scan", lambda path: pytest.fail("scanned again"))
    again = listed(archive)
    assert [again[i] for i in range(15)] == [first[i] for i in range(15)]
    assert (again.classes == first.classes).all()
    monkeypatch.undo()
    tar_of(archive, {"cat/1.png": b"x", "dog/1.png": b"y"})
    assert len(listed(archive)) == 2
    index = archive.with_name(".all.tar.index.npz")
    shorter = io.BytesIO()
    with np.load(index) as kept:
        np.savez(shorter, **{**kept, "sizes": kept["sizes"][:1]})
    flipped = bytearray(index.read_bytes())
    flipped[200] ^= 1
    one = io.BytesIO()
    np.save(one, np.arange(3))
    whole = index.read_bytes()
    for damage in (b"", b"PK\x03\x04" + b"\0" * 50, whole[:-40], shorter, flipped, one):
        damage = damage.getvalue() if isinstance(damage, io.BytesIO) else damage
        index.write_bytes(damage)
        assert len(listed(archive)) == 2
    os.truncate(archive, 1000)
    with pytest.raises(UserError, match=r"all\.tar"):
        listed(archive)


def test_an_archive_cut_after_it_was_listed_is_an_error_and_no_broken_image(photos):
    archive = packed(photos, "folders") / "all.tar"
    split = open_source(str(archive.parent)).train
    os.truncate(archive, int(split.paths[14].offset) + 5)
    loader = EvaluationLoader(split, PREPROCESS, batch_size=4, skip_broken=True)
    with pytest.raises(UserError, match=r"all\.tar is shorter than it was"):
        list(loader)
    archive.unlink()
    with pytest.raises(UserError, match="Cannot read the image"):
        list(loader)


@pytest.mark.parametrize(
    "files, said",
    [
        ({"train.tar": {"0.png": b"", "0.cls": b"3"}}, r"classes\.txt names 3 classes"),
        (
            {"train.tar": {"a/0.png": b""}, "val.tar": {"b/0.png": b""}},
            "classes that training does not have: b",
        ),
        ({"val.tar": {"a/0.png": b""}}, "no archive for training holds an image"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, files, said):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for name, inside in files.items():
        tar_of(tmp_path / name, inside)
    with pytest.raises(UserError, match=said):
        open_source(str(tmp_path))
