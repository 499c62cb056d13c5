"""JPEGs that are decoded no larger than needed: the same pictures, nearly, in less time."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mixerkit.data.decode import canvas, canvas_size, read
from mixerkit.data.loader import TrainLoader
from mixerkit.data.sources import open_source
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

HW = (64, 64)
PREPROCESS = Preprocess(image_size=64, resize="shortest", resize_to=72)


def smooth(height: int, width: int) -> Image.Image:
    """Colours that change slowly: made small, they are the same in every way."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(6 * down + 4 * across), np.cos(5 * across - down), np.sin(7 * down * across)]
    return Image.fromarray((np.stack(waves, -1) * 100 + 128).astype(np.uint8))


@pytest.fixture
def decoded(monkeypatch):
    """(width, height) of everything that is decoded."""
    sizes = []
    plain = Image.Image.resize

    def resize(self, size, *arguments, **options):
        sizes.append(self.size)
        return plain(self, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    return sizes


def least(hw):
    return canvas_size(hw, PREPROCESS)


@pytest.mark.parametrize(
    "size, orientation, expected",
    [
        ((640, 480), 1, (160, 120)),  # a quarter is 120 px high, and 72 are needed
        ((640, 480), 6, (120, 160)),  # lies on its side in the file
        ((1200, 600), 1, (150, 75)),
        ((140, 140), 1, (140, 140)),  # a half would be too small
    ],
)
def test_a_jpeg_is_decoded_as_small_as_is_enough(tmp_path, decoded, size, orientation, expected):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(size[1], size[0]).save(path, quality=95, exif=exif)
    exact = read(path, PREPROCESS, canvas)
    found = read(path, PREPROCESS, canvas, least)
    whole = size if orientation == 1 else size[::-1]
    assert decoded == [whole, expected]
    assert found.shape == exact.shape
    difference = np.abs(found.astype(int) - exact)
    assert difference.max() <= 4 if whole != expected else not difference.any()


def test_other_formats_are_decoded_whole(tmp_path, decoded):
    path = tmp_path / "a.png"
    smooth(480, 640).save(path)
    np.testing.assert_array_equal(
        read(path, PREPROCESS, canvas, least), read(path, PREPROCESS, canvas)
    )
    assert decoded == [(640, 480)] * 2


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_training_images_are_the_same_but_for_a_little(tmp_path, decoded, crop):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(6):
            size = (700, 500 + 40 * number)
            smooth(*size).save(tmp_path / label / f"{number}.jpg", quality=95)
    split = open_source(str(tmp_path)).train
    preprocess = replace(PREPROCESS, class_names=split.class_names)
    exact, scaled = (
        next(
            TrainLoader(
                split, preprocess, Augment(crop=crop), batch_size=12, seed=3, scaled=scaled
            ).epoch(0)
        )
        for scaled in (False, True)
    )
    assert (exact.targets == scaled.targets).all()
    difference = (exact.images - scaled.images).abs() * 127.5
    assert 0 < difference.mean() < 1 and difference.max() < 12
    pixels = [width * height for width, height in decoded]
    assert sum(pixels[12:]) < 0.5 * sum(pixels[:12])
