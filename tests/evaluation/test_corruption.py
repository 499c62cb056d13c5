"""Each corruption against scipy, Pillow or counting."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from mixerkit.errors import UserError
from mixerkit.evaluation.corruption import (
    KINDS,
    PUBLISHED,
    SHARES,
    compressed,
    corrupt,
    moved,
    noisy,
    shuffled,
    strengths,
)


def an_image(height: int = 28, width: int = 28, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def smooth(side: int = 64) -> np.ndarray:
    """A bump on a slope, without noise, neither black nor white anywhere."""
    down, across = np.mgrid[0:side, 0:side] / side
    bump = np.exp(-((down - 0.5) ** 2 + (across - 0.4) ** 2) / 0.01)
    return (60 + 40 * across + 120 * bump).astype(np.uint8)[:, :, None]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one.astype(float) - other) ** 2).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_is_the_image_itself(kind):
    image = an_image()
    assert corrupt(image, kind, 0, index=3) is image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_spoiled_image_is_an_image_and_the_other_is_left_alone(kind, channels):
    image = an_image(28, 56, channels)
    before = image.copy()
    for severity in range(1, len(strengths(kind, (28, 56))) + 1):
        found = corrupt(image, kind, severity, index=3, patch_hw=(7, 14))
        assert found.shape == image.shape and found.dtype == np.uint8
        assert (found != image).any()
    assert (image == before).all()


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("size", [(28, 28), (20, 45), (224, 224)])
def test_blur_is_scipys_gaussian_filter(severity, size):
    image = an_image(*size)
    sigma = strengths("blur", size)[severity - 1]
    exact = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest", truncate=4)
    found = corrupt(image, "blur", severity, index=0)
    assert np.abs(found - exact).max() <= 0.5 + 1e-9


def test_blur_is_about_pillows():
    """Which approximates a gaussian by three boxes."""
    image = smooth(224)
    pillow = np.asarray(Image.fromarray(image[:, :, 0]).filter(ImageFilter.GaussianBlur(6)))
    found = corrupt(image, "blur", 5, index=0)[:, :, 0]
    assert np.abs(found.astype(int) - pillow).max() <= 2


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_noise_has_its_mean_and_deviation(severity):
    grey = np.full((224, 224, 3), 128, np.uint8)
    std = 255 * PUBLISHED[64]["noise"][severity - 1]
    found = noisy(grey, std / 255, seed=0, index=1).astype(float) - 128
    count = found.size
    assert abs(found.mean()) < 4 * std / count**0.5
    cut_off = np.clip(np.random.default_rng(0).normal(0, std, count), -128, 127)
    assert found.std() == pytest.approx(cut_off.std(), rel=0.01)
    ranks = np.quantile(found, (0.1, 0.25, 0.75, 0.9)) / std
    assert ranks == pytest.approx([-1.2816, -0.6745, 0.6745, 1.2816], abs=0.06)


def test_noise_is_independent_over_pixels_channels_images_and_seeds():
    grey = np.full((64, 64, 3), 128, np.uint8)
    one = noisy(grey, 0.1, seed=0, index=1).astype(float) - 128
    others = [
        np.roll(one, 1, axis=0),
        np.roll(one, 1, axis=1),
        np.roll(one, 1, axis=2),
        noisy(grey, 0.1, seed=0, index=2).astype(float) - 128,
        noisy(grey, 0.1, seed=1, index=1).astype(float) - 128,
    ]
    for other in others:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [80, 7])
def test_jpeg_is_pillows_round_trip(channels, quality):
    image, file = an_image(30, 28, channels), io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, format="jpeg", quality=quality)
    with Image.open(io.BytesIO(file.getvalue())) as stored:
        expected = np.array(stored).reshape(image.shape)
    assert (compressed(image, quality) == expected).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 5), (1, 2)])
def test_shuffling_keeps_every_patch_and_moves_its_share(share, grid):
    P, Q = 2, 3
    image = an_image(grid[0] * P, grid[1] * Q)
    before, after = patches(image, P, Q), patches(shuffled(image, (P, Q), share, 0, 5), P, Q)
    assert Counter(before) == Counter(after)
    elsewhere = sum(one != other for one, other in zip(before, after, strict=True))
    assert elsewhere == moved(len(before), share)  # noise: no two patches are alike
    assert abs(elsewhere - share * len(before)) <= 0.5 or elsewhere == 2


def patches(image: np.ndarray, P: int, Q: int) -> list[bytes]:
    """Cut out one by one."""
    return [
        image[top : top + P, left : left + Q].tobytes()
        for top in range(0, image.shape[0], P)
        for left in range(0, image.shape[1], Q)
    ]


def test_every_patch_goes_everywhere():
    """Over many images each place gets each of the other patches about equally often."""
    image = np.repeat(np.arange(6, dtype=np.uint8), 4).reshape(1, 6, 4).transpose(1, 2, 0)
    counts = np.zeros((6, 6), int)
    for index in range(3000):
        found = shuffled(image, (1, 4), 1.0, 0, index)[:, 0, 0]
        counts[np.arange(6), found] += 1
    others = counts[~np.eye(6, dtype=bool)]
    assert (counts.diagonal() == 0).all()
    assert others == pytest.approx(600, abs=5 * (600 * 0.8) ** 0.5)


def test_shares_are_nested():
    """What a quarter moves, a half moves too: the curve is of one and the same disorder."""
    image = an_image(28, 28, 1)
    changed = []
    for share in SHARES:
        found = patches(shuffled(image, (4, 4), share, 0, 9), 4, 4)
        changed.append({i for i, one in enumerate(patches(image, 4, 4)) if one != found[i]})
    assert changed[0] < changed[1] < changed[2]


@pytest.mark.parametrize("side", [28, 64, 224])
@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg"])
def test_a_smooth_image_gets_worse_with_every_severity(kind, side):
    image = smooth(side)
    errors = [
        difference(corrupt(image, kind, severity, index=0), image) for severity in range(1, 6)
    ]
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_draws_depend_on_seed_and_image_alone():
    image = an_image()
    for kind in ("noise", "shuffle"):
        one, again, other_index, other_seed = (
            corrupt(image, kind, 2, index=index, seed=seed, patch_hw=(7, 7))
            for index, seed in ((4, 1), (4, 1), (5, 1), (4, 2))
        )
        assert (one == again).all()
        assert (one != other_index).any() and (one != other_seed).any()


def test_strengths_of_the_published_sides_are_the_published_ones():
    for side, kinds in PUBLISHED.items():
        for kind, published in kinds.items():
            assert strengths(kind, (side, side)) == published


def test_strengths_of_other_sides():
    assert strengths("blur", (28, 28)) == pytest.approx([0.35, 0.525, 0.6125, 0.7, 0.875])
    assert strengths("blur", (448, 600)) == pytest.approx([2, 4, 6, 8, 12])
    assert strengths("noise", (28, 28)) == PUBLISHED[32]["noise"]
    assert strengths("jpeg", (49, 49)) == PUBLISHED[64]["jpeg"]  # 64/49 is nearer to 1 than 49/32
    assert strengths("shuffle", (28, 28)) == (0.25, 0.5, 1.0)


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="'fog'"):
        strengths("fog", (28, 28))
