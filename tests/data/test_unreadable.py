"""Batches of a folder with broken images: what is left is what it would have been without them."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.data import decode
from mixerkit.data.decode import fit, open_image
from mixerkit.data.draws import shuffled
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.mixing import partners
from mixerkit.data.quarantine import nothing_left
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

PREPROCESS = Preprocess(image_size=12, resize="shortest", resize_to=14)
COUNT, BATCH, SEED, EPOCH = 60, 10, 3, 2


def make_photos(folder: Path, count: int = COUNT) -> ImageSplit:
    draw, paths = np.random.default_rng(0), []
    for i in range(count):
        paths.append(folder / f"{i:02}.png")
        Image.fromarray(draw.integers(0, 256, (20, 16, 3), np.uint8)).save(paths[-1])
    return ImageSplit("photos", ("a", "b"), np.arange(count) % 2, None, tuple(paths))


BREAK = {
    3: lambda path: os.truncate(path, 60),
    11: lambda path: path.write_bytes(b""),
    12: lambda path: (path.unlink(), path.mkdir()),
    30: lambda path: (path.unlink(), os.mkfifo(path)),
    31: lambda path: path.write_text("hello"),
    32: lambda path: path.unlink(),
    33: lambda path: (path.unlink(), path.symlink_to("nowhere")),
    34: lambda path: (path.unlink(), path.symlink_to(path.name)),
    44: lambda path: Image.new("F", (20, 20)).save(path, format="TIFF"),
    59: lambda path: os.truncate(path, decode.MAX_BYTES + 1),
}


def damage(split: ImageSplit) -> None:
    for index, harm in BREAK.items():
        harm(split.paths[index])


def train_loader(split: ImageSplit, augment: Augment, **options) -> TrainLoader:
    return TrainLoader(split, PREPROCESS, augment, batch_size=BATCH, seed=SEED, **options)


@pytest.mark.parametrize("crop", ["none", "inception"])
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("memory", [0.0, 2.0])
def test_the_rest_of_a_batch_is_what_it_was(tmp_path, crop, workers, memory):
    split = make_photos(tmp_path)
    augment = Augment(crop=crop, shift=2, erase=0.3)
    whole = list(train_loader(split, augment).epoch(EPOCH))
    damage(split)
    loader = train_loader(split, augment, workers=workers, memory=memory, skip_broken=True)
    order = shuffled(SEED, EPOCH, COUNT).reshape(-1, BATCH)
    for _ in range(2):  # the second time from memory, where there is some
        batches = list(loader.epoch(EPOCH))
        assert len(batches) == len(whole) == len(order)
        for batch, before, indices in zip(batches, whole, order.tolist(), strict=True):
            broken = [index for index in indices if index in BREAK]
            kept = [b for b, index in enumerate(indices) if index not in BREAK]
            assert [one.index for one in batch.unreadable] == broken
            assert [one.path for one in batch.unreadable] == [split.paths[i] for i in broken]
            assert torch.equal(batch.images, before.images[kept])
            assert torch.equal(batch.targets, before.targets[kept])


@pytest.mark.parametrize("group", [0, 1, 3])
def test_mixing_leaves_alone_what_lacks_its_partner_and_nothing_else(tmp_path, group):
    split = make_photos(tmp_path)
    mixing = Augment(mixup=0.5, cutmix=1.0, mix_group=group)
    before = list(train_loader(split, mixing).epoch(EPOCH))
    plain = list(train_loader(split, Augment()).epoch(EPOCH))
    damage(split)
    order = shuffled(SEED, EPOCH, COUNT).reshape(-1, BATCH)
    mixed = list(train_loader(split, mixing, skip_broken=True).epoch(EPOCH))
    alone = 0
    for step, indices in enumerate(order):
        kept = [b for b in range(BATCH) if indices[b] not in BREAK]
        for row, b in enumerate(kept):
            other = partners(np.array([b]), BATCH, mixing)[0]
            lacks = indices[other] in BREAK
            wanted = (plain if lacks else before)[step]
            assert torch.equal(mixed[step].images[row], wanted.images[b])
            assert torch.equal(mixed[step].targets[row], wanted.targets[b])
            alone += lacks
    assert alone


@pytest.mark.parametrize("crop", ["none", "inception"])
@pytest.mark.parametrize("parts", [2, 5])
def test_parts_are_together_the_batch(tmp_path, crop, parts):
    split = make_photos(tmp_path)
    damage(split)
    augment = Augment(crop=crop, mixup=0.5, cutmix=1.0, mix_group=4)
    one = list(train_loader(split, augment, skip_broken=True).epoch(EPOCH, 1))
    several = [
        list(train_loader(split, augment, skip_broken=True, part=(rank, parts)).epoch(EPOCH, 1))
        for rank in range(parts)
    ]
    for batch, *pieces in zip(one, *several, strict=True):
        assert torch.equal(batch.images, torch.cat([piece.images for piece in pieces]))
        assert torch.equal(batch.targets, torch.cat([piece.targets for piece in pieces]))
        assert batch.unreadable == tuple(b for piece in pieces for b in piece.unreadable)
    with pytest.raises(UserError, match="must be a multiple of the 3 processes"):
        train_loader(split, augment, part=(0, 3))


def test_an_epoch_begun_later_is_the_tail_of_the_whole(tmp_path):
    split = make_photos(tmp_path)
    damage(split)
    loader = train_loader(split, Augment(mixup=0.2), skip_broken=True)
    whole = list(loader.epoch(1))
    for start in range(COUNT // BATCH):
        for one, other in zip(loader.epoch(1, start), whole[start:], strict=True):
            assert torch.equal(one.images, other.images) and one.unreadable == other.unreadable


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_evaluation_tells_which_images_it_gave(tmp_path, workers, batch_size):
    split = make_photos(tmp_path)
    damage(split)
    usable = [index for index in range(COUNT) if index not in BREAK]
    wanted = np.stack([fit(open_image(split.paths[index]), PREPROCESS) for index in usable])
    loader = EvaluationLoader(
        split, PREPROCESS, batch_size=batch_size, workers=workers, skip_broken=True
    )
    for _ in range(2):
        batches = list(loader)
        images = torch.cat([images for images, _ in batches])
        np.testing.assert_allclose(images.numpy(), wanted / 127.5 - 1, atol=1e-6)
        labels = torch.cat([labels for _, labels in batches])
        assert labels.tolist() == split.labels[usable].tolist()
        assert [one.index for one in loader.unreadable] == list(BREAK)
        assert loader.usable.tolist() == usable
    np.testing.assert_array_equal(loader.picture(usable[20]), wanted[20])
    with pytest.raises(UserError, match=r"03\.png"):
        loader.picture(3)


def test_without_broken_images_everything_is_usable(tmp_path):
    split = make_photos(tmp_path, 4)
    loader = EvaluationLoader(split, PREPROCESS, batch_size=3, skip_broken=True)
    assert sum(len(labels) for _, labels in loader) == 4
    assert loader.unreadable == [] and loader.usable.tolist() == [0, 1, 2, 3]
    assert loader.usable.dtype == np.int64


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_what_the_disk_refuses_stops_the_epoch_all_the_same(tmp_path, monkeypatch, crop):
    split = make_photos(tmp_path)
    damage(split)
    healthy = Path.open

    def failing(path: Path, *arguments):
        if path == split.paths[50]:
            raise OSError(errno.EIO, "Input/output error")
        return healthy(path, *arguments)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(UserError, match=r"50\.png: Input/output error"):
        list(train_loader(split, Augment(crop=crop), skip_broken=True).epoch(0))
    with pytest.raises(UserError, match=r"50\.png: Input/output error"):
        list(EvaluationLoader(split, PREPROCESS, batch_size=7, skip_broken=True))


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_a_batch_of_which_nothing_is_left(tmp_path, crop):
    split = make_photos(tmp_path)
    for index in shuffled(SEED, 0, COUNT)[BATCH : 2 * BATCH]:
        os.truncate(split.paths[index], 50)
    batches = train_loader(split, Augment(crop=crop), skip_broken=True).epoch(0)
    assert len(next(batches).images) == BATCH
    empty = next(batches)
    assert empty.images.shape == (0, *next(batches).images.shape[1:])
    assert empty.targets.shape == (0, 2) and len(empty.unreadable) == BATCH
    assert str(split.paths[empty.unreadable[0].index]) in nothing_left(split, empty.unreadable)


def test_a_split_of_which_nothing_is_left(tmp_path):
    split = make_photos(tmp_path, 3)
    for path in split.paths:
        os.truncate(path, 50)
    with pytest.raises(UserError, match=r"None of the 3 images of photos.*00\.png"):
        list(EvaluationLoader(split, PREPROCESS, batch_size=2, skip_broken=True))


def test_a_stuck_reader_stops_both_loaders(tmp_path, monkeypatch):
    split = make_photos(tmp_path)
    split.paths[33].unlink()
    os.mkfifo(split.paths[33])
    monkeypatch.setattr(decode, "stat", SimpleNamespace(S_ISREG=lambda mode: True))
    make = {"patience": 0.3, "workers": 2, "skip_broken": True}
    try:
        with pytest.raises(RunFailed, match=r"Waited 0\.3 s for .*33\.png in vain"):
            list(train_loader(split, Augment(), **make).epoch(0))
        with pytest.raises(RunFailed, match=r"Waited 0\.3 s for .*33\.png in vain"):
            list(EvaluationLoader(split, PREPROCESS, batch_size=7, **make))
        with pytest.raises(RunFailed, match=r"33\.png in vain"):
            EvaluationLoader(split, PREPROCESS, batch_size=7, **make).picture(33)
    finally:
        with split.paths[33].open("wb"):  # lets the readers go
            pass
