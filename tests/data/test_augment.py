"""Augmentation: against the same change written pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from mixerkit.data.augment import (
    BatchDraws,
    erase_box,
    inception_box,
    normalise,
    sampled,
    window,
)
from mixerkit.data.draws import uniforms
from mixerkit.data.randaugment import randaugment
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

NOTHING = Augment(flip=False)


def plain_window(canvas_IHW, top, left, flip, height, width):
    """Each pixel by itself; 0 outside."""
    channels, canvas_h, canvas_w = canvas_IHW.shape
    out = np.zeros((channels, height, width), np.uint8)
    for i in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = top + y, left + (width - 1 - x if flip else x)
                if 0 <= from_y < canvas_h and 0 <= from_x < canvas_w:
                    out[i, y, x] = canvas_IHW[i, from_y, from_x]
    return out


@given(st.integers(1, 6), st.integers(1, 6), st.integers(-7, 7), st.integers(-7, 7), st.booleans())
def test_window_equals_pixel_by_pixel(height, width, top, left, flip):
    canvas = np.arange(1, 2 * 5 * 4 + 1, dtype=np.uint8).reshape(2, 5, 4)
    out = np.zeros((2, height, width), np.uint8)
    window(canvas, top, left, flip, out)
    np.testing.assert_array_equal(out, plain_window(canvas, top, left, flip, height, width))


def cut_all(augment: Augment, canvases: np.ndarray, size: tuple[int, int], epoch: int = 0):
    return BatchDraws(augment, 0, epoch, np.arange(len(canvases))).cut(canvases, size)


def noise(count: int, side: int) -> np.ndarray:
    shape = (count, 1, side, side)
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


def test_without_augmentation_images_stay_as_they_are():
    images = noise(3, 6)
    np.testing.assert_array_equal(cut_all(NOTHING, images, (6, 6)), images)


def test_flips_and_shifts_of_every_kind_come_equally_often():
    image = noise(1, 6)[0]
    found = cut_all(Augment(flip=True, shift=1), np.repeat(image[None], 3600, 0), (6, 6))
    variants = {
        plain_window(image, dy, dx, flip, 6, 6).tobytes(): 0
        for dy in (-1, 0, 1) for dx in (-1, 0, 1) for flip in (False, True)
    }  # fmt: skip
    for one in found:
        variants[one.tobytes()] += 1
    assert len(variants) == 18
    assert min(variants.values()) > 140 and max(variants.values()) < 260


def test_the_crop_falls_anywhere_in_the_canvas():
    canvas = noise(1, 8)[0]
    found = cut_all(NOTHING, np.repeat(canvas[None], 900, 0), (6, 6))
    wanted = {
        plain_window(canvas, top, left, False, 6, 6).tobytes()
        for top in range(3) for left in range(3)
    }  # fmt: skip
    assert {one.tobytes() for one in found} == wanted


def test_erasing_fills_one_box_with_noise_as_often_as_asked():
    images = np.zeros((600, 1, 12, 12), np.uint8)
    found = cut_all(Augment(flip=False, erase=0.25), images, (12, 12))
    changed = [one[0] != 0 for one in found if one.any()]
    assert 120 < len(changed) < 180
    for mask in changed:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.8  # noise is 0 once in 256 pixels
    values = np.concatenate([one[one != 0] for one in found])
    assert abs(values.mean() - 128) < 5 and values.max() > 250


def test_erased_boxes_have_the_area_and_the_aspect():
    draws = uniforms(0, 0, np.arange(2000), 4)
    boxes = np.array([erase_box(row.tolist(), 100, 200) for row in draws])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (top + height <= 100).all()
    assert (left >= 0).all() and (left + width <= 200).all()
    share = height * width / 20_000
    assert 0.018 < share.min() < 0.03 and 0.3 < share.max() < 0.335
    assert abs(np.log(width / height).mean() - 0) < 0.1


def test_inception_boxes_have_the_area_and_the_aspect():
    draws = uniforms(0, 0, np.arange(3000), 22)
    boxes = np.array([inception_box(row, 300, 400, (0.05, 1.0)) for row in draws])
    left, top, right, bottom = boxes.T
    assert left.min() == 0 and top.min() == 0 and right.max() == 400 and bottom.max() == 300
    share = (right - left) * (bottom - top) / (300 * 400)
    aspect = (right - left) / (bottom - top)
    assert 0.049 < share.min() < 0.06 and share.max() > 0.9
    assert 0.74 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.35
    small = share[share < 0.5]
    assert np.histogram(small, 5, (0.05, 0.5))[0].min() > 0.8 * len(small) / 5


def test_where_no_inception_box_fits_the_whole_image_is_taken():
    assert inception_box(np.full(22, 0.99), 10, 1000, (0.9, 1.0)) == (0, 0, 1000, 10)


def test_inception_crop_is_the_box_scaled():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8))
    draws = BatchDraws(Augment(flip=False, crop="inception"), 3, 2, np.array([9]))
    out = np.zeros((1, 16, 16), np.uint8)
    draws.crop(0, image, "bilinear", out)
    left, top, right, bottom = inception_box(
        uniforms(3, 2, np.array([9]), 22, stream=3)[0], 40, 60, (0.05, 1.0)
    )
    wanted = image.resize((16, 16), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    np.testing.assert_array_equal(out[0], np.asarray(wanted))


@pytest.mark.parametrize("mean, std", [((0.5,), (0.5,)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])
def test_normalise_is_the_definition(mean, std):
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    found = normalise(images, Preprocess(image_size=(5, 6), mean=mean, std=std))
    x = images.numpy().astype(np.float64) / 255
    wanted = (x - np.array(mean).reshape(-1, 1, 1)) / np.array(std).reshape(-1, 1, 1)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_randaugment_changes_each_image_once_it_is_cut_by_draws_of_its_own(count):
    images = np.random.default_rng(3).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)
    plain = Augment(flip=True, shift=2)
    augment = replace(plain, randaugment=15, randaugment_count=count)
    before, after = cut_all(plain, images, (12, 12), 4), cut_all(augment, images, (12, 12), 4)
    draws = uniforms(0, 4, np.arange(40), 4 * count, stream=8).reshape(40, count, 4)
    for one, draw, found in zip(before, draws, after, strict=True):
        np.testing.assert_array_equal(found, randaugment(one, draw, 15))
    assert (before != after).any((1, 2, 3)).mean() > 0.7


def test_randaugment_comes_after_the_inception_crop_too():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8))
    plain = Augment(crop="inception")
    cropped, changed = np.zeros((2, 1, 16, 16), np.uint8)
    BatchDraws(plain, 3, 2, np.array([9])).crop(0, image, "bilinear", cropped)
    BatchDraws(replace(plain, randaugment=10), 3, 2, np.array([9])).crop(
        0, image, "bilinear", changed
    )
    draws = uniforms(3, 2, np.array([9]), 8, stream=8).reshape(2, 4)
    np.testing.assert_array_equal(changed, randaugment(cropped, draws, 10))


@pytest.mark.parametrize("size", [(7, 5), (16, 16), (90, 70)])
def test_sampling_takes_the_nearest_pixels_by_the_textbook_formula(size):
    pixels = np.random.default_rng(5).integers(0, 256, (40, 61), dtype=np.uint8)
    found = np.asarray(sampled(Image.fromarray(pixels), size, "bilinear")).astype(float)
    (width, height), (H, W) = size, pixels.shape
    y = np.clip((np.arange(height) + 0.5) * H / height - 0.5, 0, H - 1)
    x = np.clip((np.arange(width) + 0.5) * W / width - 0.5, 0, W - 1)
    top, left = np.minimum(y.astype(int), H - 2), np.minimum(x.astype(int), W - 2)
    down, across = (y - top)[:, None], x - left
    rows = [pixels[top + dy][:, left + dx] for dy in (0, 1) for dx in (0, 1)]
    upper, lower = (a * (1 - across) + b * across for a, b in (rows[:2], rows[2:]))
    fraction = upper * (1 - down) + lower * down - found
    assert fraction.min() > -1e-6 and fraction.max() < 1 + 1e-6  # cut off, as TensorFlow does


def test_a_crop_without_antialiasing_is_the_box_sampled():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8))
    augment = Augment(flip=False, crop="inception", crop_antialias=False)
    out = np.zeros((1, 8, 8), np.uint8)
    BatchDraws(augment, 3, 2, np.array([9])).crop(0, image, "bilinear", out)
    box = inception_box(uniforms(3, 2, np.array([9]), 22, stream=3)[0], 40, 60, (0.05, 1.0))
    np.testing.assert_array_equal(out[0], sampled(image.crop(box), (8, 8), "bilinear"))
