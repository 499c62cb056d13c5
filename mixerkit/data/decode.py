"""Opening image files safely, and bringing them to a model's size.

Letters: I image channels, H and W height and width in pixels.
"""

import base64
import errno
import hashlib
import io
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from mixerkit.data.budget import Budget
from mixerkit.data.files import Place
from mixerkit.errors import UserError
from mixerkit.results import usable_cores
from mixerkit.spec.preprocess import Preprocess

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
MAX_BYTES = 160 * 2**20
"""Of a file; `MAX_PIXELS` of 8-bit RGB take 143 MiB without compression."""
BAND_PIXELS = 2**20
TILE_WIDTH, TILE_HEIGHT = 322, 323  # TIFF 6.0, section 15

TYPICAL_PIXELS = 12_000_000
DECODING = Budget(max(MAX_PIXELS, TYPICAL_PIXELS * usable_cores()))
"""Pixels that all threads together may decode at a time. One takes up to 16 bytes meanwhile."""

# In Pillow's own blocks of 16 MiB, glibc keeps what a large image took, once for each thread.
# Blocks above 32 MiB it always gives back.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
}
OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP)
"""Errors of the system that say something about one file: it is gone, a link leads nowhere or in a
circle, it may not be read. All others, such as a failing disk or too many open files, do not."""
_CONVERTIBLE = ("1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_GREY = ("1", "L", "LA", "La")


ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF: the tag that says how an image lies, and its values for a quarter turn."""
Least = Callable[[tuple[int, int]], tuple[int, int]]
"""(height, width) of an image → the least that it may be decoded at."""


class BrokenImage(UserError):
    """One image cannot be used, for `reason`; other images may well be usable.

    What says nothing about the file itself, such as a disk that fails, is a plain `UserError`.
    """

    def __init__(self, reason: str, path: Place | None = None) -> None:
        super().__init__(f"Cannot use the image {path}: {reason}" if path else reason)
        self.reason = reason


def open_image(path: Place) -> Image.Image:
    """The image in a file: upright (EXIF), 8-bit, mode "L" when the file is grey, else "RGB".

    Transparent pixels are shown on white; 16-bit grey is scaled to 8 bit; of an animation the
    first frame is taken. A file that is not a regular file, not in one of `FORMATS` (told by
    its content), above `MAX_PIXELS` or `MAX_BYTES`, cut short, broken, gone or not to be read
    raises `BrokenImage`, a disk that fails `UserError`; both name it.
    """
    with _naming(path):
        return upright(_opened(_content(path)))


def read(
    path: Place,
    preprocess: Preprocess,
    prepare: Callable[[Image.Image, Preprocess], np.ndarray],
    least: Least | None = None,
) -> np.ndarray:
    """`prepare` (such as `fit` or `canvas`) of an image file; errors as of `open_image`.

    With `least`, a JPEG may be decoded at a half, quarter or eighth of its size, which takes less
    time: the smallest that is at least `least` of its (height, width). Threads that read large
    images wait for each other, see `budget.py`.
    """
    with _naming(path):
        image = _opened(_content(path))
        if least:
            _draft(image, least)
        with DECODING.taken(_pixels(image)):
            return prepare(upright(image), preprocess)


def _draft(image: ImageFile.ImageFile, least: Least) -> None:
    """Have a JPEG decoded no larger than needed; the sizes are of the image once it is upright."""
    with _decoding():
        if image.format != "JPEG":
            return
        lies = image.getexif().get(ORIENTATION, 1) in TURNED
        height, width = image.size if lies else image.size[::-1]
        needed = least((height, width))
        image.draft(None, needed if lies else needed[::-1])  # type: ignore[arg-type]


def digest(path: Place) -> bytes:
    """SHA-256 of the bytes of an image file; zeros where they cannot be read."""
    try:
        return hashlib.sha256(_content(path)).digest()
    except (UserError, OSError):
        return bytes(hashlib.sha256().digest_size)


@contextmanager
def _naming(path: Place) -> Iterator[None]:
    """Adds the file to whatever goes wrong with it."""
    try:
        yield
    except BrokenImage as error:
        raise BrokenImage(error.reason, path) from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        if isinstance(path, Path) and error.errno in OF_THE_FILE:
            leads_nowhere = error.errno == errno.ENOENT and path.is_symlink()
            reason = "it is a link that leads nowhere" if leads_nowhere else error.strerror
            raise BrokenImage(f"{reason}.", path) from error
        raise UserError(f"Cannot read the image {path}: {error.strerror or error}.") from error


def _content(path: Place) -> bytes:
    """The bytes of a file; what would block or never end, such as a pipe, is not opened."""
    if not isinstance(path, Path):
        _check_bytes(path.size)
        found = path.content()
        _check_bytes(len(found))
        return found
    try:
        about = path.stat()
    except ValueError as error:  # a name that no file can have
        raise UserError(str(error)) from error
    if not stat.S_ISREG(about.st_mode):
        raise BrokenImage("it is not a regular file.")
    _check_bytes(about.st_size)
    with path.open("rb") as file:
        return file.read(about.st_size)


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise BrokenImage(
            f"its {size / 2**20:.0f} MiB are above the limit of {MAX_BYTES // 2**20} MiB. "
            f"Make it smaller."
        )


def _opened(content: bytes) -> ImageFile.ImageFile:
    """The image of a file's bytes, of which no more than the head was looked at."""
    if not content:
        raise BrokenImage("the file is empty. Replace it by a whole copy.")
    with _decoding():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BrokenImage(_too_large(f"{image.width} × {image.height} px"))
        if _pixels(image) > MAX_PIXELS:
            raise BrokenImage(_too_large("one of its tiles"))
        return image


def _pixels(image: ImageFile.ImageFile) -> int:
    """Pixels that decoding makes: of the image, or of one of its tiles where that is larger."""
    if image.format != "TIFF":
        return image.width * image.height
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    return max(image.width * image.height, int(tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)))


def upright(image: Image.Image) -> Image.Image:
    """All pixels, upright and in 8 bits; the image itself is closed."""
    with _decoding():
        with image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        return _as_8_bit(image)


@contextmanager
def _decoding() -> Iterator[None]:
    """Makes `BrokenImage` of what goes wrong with bytes that are in memory already."""
    try:
        yield
    except (BrokenImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BrokenImage(_too_large("it")) from error
    except UnidentifiedImageError as error:
        raise BrokenImage(f"its content is none of {', '.join(FORMATS)}. Convert it.") from error
    except Exception as error:
        # Pillow's decoders meet broken bytes with a dozen kinds of exceptions.
        what = str(error) or type(error).__name__
        raise BrokenImage(
            f"it is broken or cut short ({what}). Replace it by a whole copy."
        ) from error


def _too_large(what: str) -> str:
    return f"{what} is above the limit of {MAX_PIXELS // 10**6} million pixels. Make it smaller."


def _as_8_bit(image: Image.Image) -> Image.Image:
    """Mode "L" or "RGB" of any mode that has one meaning."""
    wanted = "L" if image.mode in _GREY or image.mode.startswith("I;16") else "RGB"
    if image.mode.startswith("I;16"):
        return _in_bands(image, wanted, _scaled_16_bit)
    if image.has_transparency_data:
        return _in_bands(image, wanted, _on_white)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in _CONVERTIBLE:
        raise BrokenImage(
            f"its pixels are of kind '{image.mode}', which has no fixed range. Save it with "
            f"8 or 16 bits per channel."
        )
    return image.convert(wanted)


def _in_bands(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """`convert` of the image, some rows at a time, so that what lies between takes no memory."""
    out = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        out.paste(convert(image.crop(box)).convert(mode), box)
    return out


def _scaled_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image in grey (1) or RGB (3); the same one when it is so already."""
    if channels not in (1, 3):
        raise UserError(f"Image files have 1 (grey) or 3 (RGB) channels, the model {channels}.")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def canvas(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """uint8 [I, H', W'] at `resize_to`, before the crop (training crops at random from it)."""
    image = in_channels(image, preprocess.channels)
    if preprocess.resize == "none":
        if image.size[::-1] != preprocess.image_hw:
            raise UserError(
                f"Expected an image of {pixels_text(preprocess.image_hw)}, found "
                f"{pixels_text(image.size[::-1])}: set data.resize to 'shortest' or 'squash', or "
                f"give --crop to `mixer evaluate`."
            )
    else:
        height, width = canvas_size((image.height, image.width), preprocess)
        if height * width > MAX_PIXELS:
            raise BrokenImage(
                f"The image of {pixels_text(image.size[::-1])} is too long and narrow: scaled, "
                f"{_too_large(pixels_text((height, width)))}"
            )
        image = image.resize((width, height), FILTERS[preprocess.interpolation])
    return as_IHW(image)


def canvas_size(image_hw: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(height, width) of an image of `image_hw` after resizing, at least the model's size."""
    target_h, target_w = preprocess.image_hw
    if preprocess.resize == "none":
        return target_h, target_w
    if preprocess.resize_to:
        target_h = target_w = preprocess.resize_to
    if preprocess.resize == "squash":
        return target_h, target_w
    height, width = image_hw
    scale = max(target_h / height, target_w / width)
    return max(target_h, round(height * scale)), max(target_w, round(width * scale))


def fit(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """uint8 [I, H, W]: resized and cropped at the centre to the model's `image_size`."""
    whole_IHW = canvas(image, preprocess)
    height, width = preprocess.image_hw
    top = (whole_IHW.shape[1] - height) // 2
    left = (whole_IHW.shape[2] - width) // 2
    return np.ascontiguousarray(whole_IHW[:, top : top + height, left : left + width])


def from_array(image_HWI: np.ndarray) -> Image.Image:
    """A grey or RGB image from uint8 [H, W, 1] or [H, W, 3]."""
    if image_HWI.shape[2] not in (1, 3):
        raise UserError(f"Only images of 1 or 3 channels can be resized, found {image_HWI.shape}.")
    return Image.fromarray(image_HWI[:, :, 0] if image_HWI.shape[2] == 1 else image_HWI)


def as_IHW(image: Image.Image) -> np.ndarray:  # noqa: N802 — letters of dimensions
    """uint8 [I, H, W] of a grey or RGB image, contiguous."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def png_data_uri(image_IHW: np.ndarray) -> str:
    """`data:image/png;base64,…` of uint8 [I, H, W] with 1 or 3 channels, for HTML."""
    content = io.BytesIO()
    image = from_array(np.ascontiguousarray(image_IHW.transpose(1, 2, 0)))
    image.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def pixels_text(hw: tuple[int, int]) -> str:
    """A (height, width) for people."""
    return f"{hw[1]} × {hw[0]} px (width × height)"
