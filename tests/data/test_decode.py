"""Opening images: every kind of file, and what each pixel must become."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from mixerkit.data import decode
from mixerkit.data.decode import canvas, fit, open_image, png_data_uri, read
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess
from tests.data.pictures import colour, ramp, save

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "name, tolerance",
    [("a.jpg", 12), ("a.png", 0), ("a.webp", 25), ("a.bmp", 0), ("a.tif", 0)],
)
def test_rgb_in_every_format(tmp_path, name, tolerance):
    options = {"quality": 95} if tolerance else {}
    image = open_image(save(tmp_path / name, Image.fromarray(colour()), **options))
    assert image.mode == "RGB"
    difference = np.abs(np.asarray(image).astype(int) - colour())
    assert difference.max() <= tolerance


def test_grey_stays_grey(tmp_path):
    image = open_image(save(tmp_path / "a.png", Image.fromarray(ramp())))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), ramp())


def test_one_bit(tmp_path):
    bits = ramp() > 120
    image = open_image(save(tmp_path / "a.png", Image.fromarray(bits)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), bits * 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_is_scaled_not_cut_off(tmp_path, name):
    values = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    image = open_image(save(tmp_path / name, Image.fromarray(values)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("grey", [False, True])
def test_transparency_shows_white(tmp_path, grey):
    alpha = RNG.integers(0, 256, (24, 32), dtype=np.uint8)
    pixels = np.dstack([ramp(), alpha] if grey else [colour(), alpha])
    image = open_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert image.mode == ("L" if grey else "RGB")
    share = alpha / 255 if grey else alpha[..., None] / 255
    wanted = (ramp() if grey else colour()) * share + 255 * (1 - share)
    assert np.abs(np.asarray(image) - wanted).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_a_transparent_colour(tmp_path, name):
    image = Image.fromarray(np.repeat([[0, 1, 2]], 4, 0).astype(np.uint8), mode=None)
    palette = Image.new("P", image.size)
    palette.putdata(image.tobytes())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = open_image(save(tmp_path / name, palette, transparency=1))
    assert found.mode == "RGB"
    assert np.asarray(found)[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_cmyk(tmp_path):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 0] = 255  # cyan: no red
    path = save(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"), quality=95)
    red, green, blue = np.asarray(open_image(path)).reshape(-1, 3).mean(0)
    assert red < 10 and green > 245 and blue > 245


@pytest.mark.parametrize("name, grey", [("a.png", False), ("a.tif", False), ("a.tif", True)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation, name, grey):
    """What each of the eight stored orientations must be turned into, by NumPy."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = ramp() if grey else colour()
    path = save(tmp_path / name, Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(np.asarray(open_image(path)), undo(pixels))


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 6), name) for name in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.asarray(open_image(path))[0, 0].tolist() == [255, 0, 0]


def test_the_content_decides_not_the_ending(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp()).save(path, format="PNG")
    np.testing.assert_array_equal(np.asarray(open_image(path)), ramp())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_conversion_in_bands_is_conversion_in_one_go(tmp_path, monkeypatch, mode):
    noise = RNG.integers(0, 256, (37, 23, 4), dtype=np.uint8)
    image = Image.fromarray(noise[..., :3].astype(np.uint16)[..., 0] * 257)
    if mode != "I;16":
        image = Image.fromarray(noise).convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    path = save(tmp_path / "a.png", image, **options)
    whole = open_image(path)
    for pixels in (1, 23 * 5, 23 * 37):
        monkeypatch.setattr(decode, "BAND_PIXELS", pixels)
        assert open_image(path) == whole


def test_fit_squash_scales_both_sides_and_takes_the_centre():
    image = Image.fromarray(colour())
    found = fit(image, Preprocess(image_size=8, resize="squash", resize_to=12))
    wanted = np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR))[2:10, 2:10]
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1))


@pytest.mark.parametrize("resize_to, scaled", [(0, (11, 8)), (12, (16, 12))])
def test_fit_shortest_keeps_the_aspect(resize_to, scaled):
    image = Image.fromarray(colour())  # 32 × 24
    found = fit(image, Preprocess(image_size=8, resize="shortest", resize_to=resize_to))
    whole = np.asarray(image.resize(scaled, Image.Resampling.BILINEAR))
    top, left = (whole.shape[0] - 8) // 2, (whole.shape[1] - 8) // 2
    wanted = whole[top : top + 8, left : left + 8]
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1))


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20),
    st.sampled_from(["squash", "shortest"]), st.sampled_from([0, 20, 33]),
    st.sampled_from([1, 3]),
)  # fmt: skip
def test_every_image_fits_every_size(width, height, model_h, model_w, resize, resize_to, channels):
    preprocess = Preprocess(
        image_size=(model_h, model_w), channels=channels, resize=resize, resize_to=resize_to
    )
    image = Image.new("RGB", (width, height), "orange")
    assert fit(image, preprocess).shape == (channels, model_h, model_w)
    whole = canvas(image, preprocess).shape
    assert whole[1] >= model_h and whole[2] >= model_w
    if resize_to:
        assert min(whole[1:]) == resize_to


def test_grey_to_rgb_and_back():
    grey = Image.fromarray(ramp())
    rgb = fit(grey, Preprocess(image_size=(24, 32), resize="none"))
    assert all(np.array_equal(plane, ramp()) for plane in rgb)
    back = fit(Image.fromarray(rgb.transpose(1, 2, 0)), Preprocess((24, 32), 1, "none"))
    np.testing.assert_array_equal(back[0], ramp())


def test_another_size_without_resizing_names_the_file_and_the_setting(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    with pytest.raises(UserError, match=r"a\.png.*8 × 8 px.*found 32 × 24 px.*data\.resize"):
        read(path, Preprocess(image_size=8, resize="none"), fit)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_data_uri_holds_the_pixels(channels):
    pixels = RNG.integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    kind, _, content = png_data_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(image.reshape(5, 7, channels), pixels.transpose(1, 2, 0))
