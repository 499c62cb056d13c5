"""Each operation against its definition, worked out pixel by pixel or by Pillow."""

import cmath
import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from mixerkit.data import randaugment as ra

MAGNITUDES = [4, 10, 15, 20]
SHAPES = [(3, 19, 26), (1, 28, 28), (3, 300, 280)]
PLUS, MINUS = np.array([0.7, 0.5, 0.5]), np.array([0.2, 0.5, 0.5])


@pytest.fixture(params=SHAPES, ids=str)
def image(request):
    _, H, W = request.param
    smooth = np.add.outer(np.arange(H) * 3, np.arange(W) * 2) % 200 + 20
    noise = np.random.default_rng(1).integers(-20, 20, request.param)
    return (smooth + noise).astype(np.uint8)


def by_pillow(operation, image):
    return np.stack([np.asarray(operation(Image.fromarray(channel))) for channel in image])


def by_pixel(value, image):
    """`value(channel, y, x)` at every pixel of every channel."""
    _, H, W = image.shape
    found = [[[value(c, y, x) for x in range(W)] for y in range(H)] for c in range(len(image))]
    return np.array(found)


def assert_cut_off(found, exact):
    """`found` is `exact` without its fraction; float32 may be on the other side of a whole."""
    found, exact = found.astype(int), np.clip(exact, 0, 255)
    assert (found >= np.floor(exact - 1e-3)).all() and (found <= np.floor(exact + 1e-3)).all()


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (ra.auto_contrast, ImageOps.autocontrast),
        (ra.equalize, ImageOps.equalize),
        (ra.invert, ImageOps.invert),
    ],
)
def test_as_pillow_does_it(image, ours, theirs):
    difference = ours(image, 15, PLUS).astype(int) - by_pillow(theirs, image)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01  # float32


@pytest.mark.parametrize("value", [0, 77, 255])
def test_an_image_of_one_colour_is_neither_stretched_nor_equalised(value):
    flat = np.full((3, 20, 20), value, np.uint8)
    assert (ra.auto_contrast(flat, 15, PLUS) == flat).all()
    assert (ra.equalize(flat, 15, PLUS) == flat).all()


@pytest.mark.parametrize("magnitude, bits", [(5, 2), (10, 4), (15, 6), (20, 8), (25, 8)])
def test_posterize(image, magnitude, bits):
    expected = by_pillow(lambda channel: ImageOps.posterize(channel, bits), image)
    assert (ra.posterize(image, magnitude, PLUS) == expected).all()


@pytest.mark.parametrize("magnitude, threshold", [(4, 102), (5, 128), (10, 256), (15, 384)])
def test_solarize(image, magnitude, threshold):
    expected = by_pillow(lambda channel: ImageOps.solarize(channel, threshold), image)
    assert (ra.solarize(image, magnitude, PLUS) == expected).all()


@pytest.mark.parametrize("magnitude, added", [(4, 44), (10, 110), (15, 165), (20, 220)])
def test_solarize_add(image, magnitude, added):
    expected = np.array([min(255, v + added) if v < 128 else v for v in range(256)])[image]
    assert (ra.solarize_add(image, magnitude, PLUS) == expected).all()


def blended(plain, image, magnitude):
    factor = 0.18 * magnitude + 0.1
    return plain + factor * (image.astype(np.float64) - plain)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_colour_contrast_brightness(image, magnitude):
    assert_cut_off(ra.brightness(image, magnitude, PLUS), blended(0, image, magnitude))
    gray = math.floor(min(255, image.shape[1] * image.shape[2] / 256))
    assert_cut_off(ra.contrast(image, magnitude, PLUS), blended(gray, image, magnitude))
    if len(image) == 1:
        assert ra.color(image, magnitude, PLUS) is image
        return
    red, green, blue = image / 255
    gray = (0.2989 * red + 0.587 * green + 0.114 * blue) * 255.5
    clear = np.abs(gray - np.round(gray)) > 1e-3
    assert clear.mean() > 0.95
    found, exact = ra.color(image, magnitude, PLUS), blended(np.floor(gray), image, magnitude)
    assert_cut_off(found[:, clear], exact[:, clear])


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_sharpness(image, magnitude):
    image = image[:, :40, :40]
    _, H, W = image.shape
    whole = image.astype(int)

    def smooth(c, y, x):
        if y in (0, H - 1) or x in (0, W - 1):
            return whole[c, y, x]
        return (whole[c, y - 1 : y + 2, x - 1 : x + 2].sum() + 4 * whole[c, y, x]) // 13

    exact = blended(by_pixel(smooth, image), image, magnitude)
    assert_cut_off(ra.sharpness(image, magnitude, PLUS), exact)


def test_sharpness_leaves_an_image_without_inside():
    thin = np.arange(30, dtype=np.uint8).reshape(3, 2, 5)
    assert (ra.sharpness(thin, 15, PLUS) == thin).all()


def moved(image, source):
    """The pixel nearest to `source(y, x)`; half a pixel away from zero."""

    def nearest(place):
        return math.floor(abs(place) + 0.5) * (1 if place >= 0 else -1)

    def value(c, y, x):
        from_y, from_x = map(nearest, source(y, x))
        _, H, W = image.shape
        return image[c, from_y, from_x] if 0 <= from_y < H and 0 <= from_x < W else 128

    return by_pixel(value, image)


@pytest.mark.parametrize("draw, sign", [(PLUS, 1), (MINUS, -1)])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_shear_and_translate(image, magnitude, draw, sign):
    image = image[:, :40, :40]
    slope, pixels = sign * 0.03 * magnitude, sign * 10 * magnitude
    for ours, source in [
        (ra.shear_x, lambda y, x: (y, x + slope * y)),
        (ra.shear_y, lambda y, x: (y + slope * x, x)),
        (ra.translate_x, lambda y, x: (y, x + pixels)),
        (ra.translate_y, lambda y, x: (y + pixels, x)),
    ]:
        assert (ours(image, magnitude, draw) == moved(image, source)).all(), ours.__name__


@pytest.mark.parametrize("draw, sign", [(PLUS, 1), (MINUS, -1)])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_rotate(image, magnitude, draw, sign):
    """In the complex plane, x + iy, about the middle; exact halves may fall either way."""
    image = image[:, :40, :40]
    turn = cmath.exp(1j * math.radians(sign * 3 * magnitude))
    middle = complex((image.shape[2] - 1) / 2, (image.shape[1] - 1) / 2)

    def source(y, x):
        place = middle + (complex(x, y) - middle) * turn
        return place.imag, place.real

    def between(c, y, x):
        return any(abs(place % 1 - 0.5) < 1e-9 for place in source(y, x))

    different = ra.rotate(image, magnitude, draw) != moved(image, source)
    assert not (different & ~by_pixel(between, image)).any()


def test_rotating_by_a_right_angle_is_exact():
    image = np.random.default_rng(2).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    for draw in (PLUS, MINUS):
        turned = ra.rotate(image, 30, draw)
        assert any((turned == np.rot90(image, k, (1, 2))).all() for k in (1, 3))


@pytest.mark.parametrize("y, x", [(0.0, 0.0), (0.5, 0.5), (0.999, 0.999), (0.3, 0.0)])
@pytest.mark.parametrize("magnitude", [1, 2.5, 15])
def test_cutout(image, magnitude, y, x):
    _, H, W = image.shape
    found = ra.cutout(image, magnitude, np.array([0.0, y, x]))
    half, middle = int(4 * magnitude), (int(y * H), int(x * W))

    def inside(place, centre):
        return centre - half <= place < centre + half

    for at_y in range(0, H, 3):
        for at_x in range(0, W, 3):
            cut = inside(at_y, middle[0]) and inside(at_x, middle[1])
            expected = [128] * len(image) if cut else image[:, at_y, at_x].tolist()
            assert found[:, at_y, at_x].tolist() == expected


def test_draws_choose_evenly_and_are_applied_in_turn(image):
    counts = np.zeros(16, int)
    names = {operation.__name__ for operation in ra.OPERATIONS}
    assert len(names) == len(ra.OPERATIONS) == 16
    for share in (np.arange(1600) + 0.5) / 1600:
        counts[int(share * 16)] += 1
        draws = np.array([[share, 0.9, 0.1, 0.8]])
        operation = ra.OPERATIONS[int(share * 16)]
        if counts[int(share * 16)] == 1:
            expected = operation(image, 15, draws[0, 1:])
            assert (ra.randaugment(image, draws, 15) == expected).all()
    assert (counts == 100).all()
    invert = ra.OPERATIONS.index(ra.invert) / 16
    twice = np.full((2, 4), invert + 0.01)
    assert (ra.randaugment(image, twice, 15) == image).all()


@pytest.mark.parametrize("operation", ra.OPERATIONS, ids=lambda found: found.__name__)
def test_the_image_itself_is_not_changed(image, operation):
    before = image.copy()
    image.setflags(write=False)
    changed = operation(image, 15, PLUS)
    assert (image == before).all() and changed.shape == image.shape and changed.dtype == np.uint8
