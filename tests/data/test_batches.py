"""Batches cut in one go: bit for bit what cutting image by image gives."""

import numpy as np
import pytest
import torch

from mixerkit.data.augment import erase_box, normalise, window
from mixerkit.data.decode import canvas, from_array
from mixerkit.data.draws import CROP, ERASE, FLIP, NOISE, SHIFT, shuffled, uniforms
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.splits import ImageSplit
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

SEED, EPOCH, BATCH = 3, 2, 7


def split_of(height: int, width: int, channels: int) -> ImageSplit:
    images = np.random.default_rng(0).integers(0, 256, (30, height, width, channels), np.uint8)
    return ImageSplit("made up", ("a", "b"), np.arange(30) % 2, images)


def one_by_one(index: int, canvas_IHW: np.ndarray, augment: Augment, size: tuple[int, int]):
    """Every number drawn for this image alone, whether it is used or not."""

    def draw(stream: int, count: int) -> np.ndarray:
        return uniforms(SEED, EPOCH, np.array([index]), count, stream)[0]

    (_, canvas_h, canvas_w), (height, width) = canvas_IHW.shape, size
    down, across = draw(CROP, 22)[:2]
    shift_y, shift_x = np.floor(draw(SHIFT, 2) * (2 * augment.shift + 1)) - augment.shift
    top = int(down * (canvas_h - height + 1)) + int(shift_y)
    left = int(across * (canvas_w - width + 1)) + int(shift_x)
    out = np.zeros((len(canvas_IHW), height, width), np.uint8)
    window(canvas_IHW, top, left, bool(augment.flip and draw(FLIP, 1)[0] < 0.5), out)
    chance, *place = draw(ERASE, 5).tolist()
    if chance < augment.erase:
        y, x, h, w = erase_box(place, height, width)
        box = out[:, y : y + h, x : x + w]
        box[:] = (draw(NOISE, box.size) * 256).astype(np.uint8).reshape(box.shape)
    return out


SHAPES = {
    "small grey": (split_of(9, 12, 1), Preprocess((9, 12), 1, "none")),
    "small colour": (split_of(8, 8, 3), Preprocess(8, 3, "none")),
    "small with a margin": (split_of(12, 12, 3), Preprocess((9, 8), 3, "squash", 12)),
    "large": (split_of(50, 48, 3), Preprocess((50, 48), 3, "none")),
    "large with a margin": (split_of(50, 50, 3), Preprocess(32, 3, "squash", 50)),
    "resized": (split_of(20, 20, 1), Preprocess(9, 1, "squash", 11)),
}
AUGMENTS = {
    "nothing": Augment(flip=False),
    "flip": Augment(flip=True),
    "shift": Augment(flip=False, shift=1),
    "far": Augment(flip=True, shift=60),
    "everything": Augment(flip=True, shift=3, erase=0.5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_an_epoch_is_what_image_by_image_gives(shape, augment):
    split, preprocess = SHAPES[shape]
    loader = TrainLoader(split, preprocess, augment, batch_size=BATCH, seed=SEED)
    order = shuffled(SEED, EPOCH, len(split))
    batches = list(loader.epoch(EPOCH))
    assert len(batches) == len(split) // BATCH
    for step, batch in enumerate(batches):
        wanted = [
            one_by_one(
                index,
                canvas(from_array(split.images[index]), preprocess),
                augment,
                preprocess.image_hw,
            )
            for index in order[step * BATCH : (step + 1) * BATCH].tolist()
        ]
        assert batch.images.stride() == torch.empty(batch.images.shape).stride()
        assert torch.equal(batch.images, normalise(torch.from_numpy(np.stack(wanted)), preprocess))


@pytest.mark.parametrize("shape", ["small grey", "large"])
def test_what_is_stored_as_an_array_needs_no_thread(shape, monkeypatch):
    def fetch(*_: object) -> None:
        raise AssertionError("tasks for images that are in memory as they are used")

    monkeypatch.setattr("mixerkit.data.pixels.fetch", fetch)
    split, preprocess = SHAPES[shape]
    list(TrainLoader(split, preprocess, Augment(), batch_size=BATCH, seed=SEED).epoch(0))
    loader = EvaluationLoader(split, preprocess, batch_size=BATCH)
    for start, (images, labels) in zip(range(0, 30, BATCH), loader, strict=True):
        chosen = slice(start, start + BATCH)
        wanted = np.ascontiguousarray(split.images[chosen].transpose(0, 3, 1, 2))
        assert images.stride() == torch.empty(images.shape).stride()
        assert labels.tolist() == split.labels[chosen].tolist()
        assert torch.equal(images, normalise(torch.from_numpy(wanted), preprocess))
    assert (loader.picture(4) == split.images[4].transpose(2, 0, 1)).all()
