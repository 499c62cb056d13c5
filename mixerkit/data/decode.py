"""Opening image files safely, and bringing them to a model's size.

Letters: I image channels, H and W height and width in pixels.
"""

import base64
import io
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
}
_CONVERTIBLE = ("1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_GREY = ("1", "L", "LA", "La")


def open_image(path: Path) -> Image.Image:
    """The image in a file: upright (EXIF), 8-bit, mode "L" when the file is grey, else "RGB".

    Transparent pixels are shown on white; 16-bit grey is scaled to 8 bit; of an animation the
    first frame is taken. A file that is not a regular file, not in one of `FORMATS` (told by
    its content), above `MAX_PIXELS`, cut short or broken raises `UserError` that names it.
    """
    _check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image.size)
            image.load()
            return _as_8_bit(ImageOps.exif_transpose(image))
    except UserError as error:
        raise UserError(f"Cannot use the image {path}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"Cannot use the image {path}: {_too_large('it')}") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"Cannot use the image {path}: its content is none of {', '.join(FORMATS)}. "
            f"Convert it or take it out."
        ) from error
    except Exception as error:
        # Pillow's decoders meet broken bytes with a dozen kinds of exceptions.
        raise UserError(
            f"Cannot read the image {path}: it is broken or cut short ({error}). "
            f"Replace it or take it out."
        ) from error


def _check_file(path: Path) -> None:
    """Refuses what would block or never end, such as pipes and devices."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"Cannot read the image {path}: {reason}.") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"Cannot read the image {path}: it is not a regular file.")


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(_too_large(f"{size[0]} × {size[1]} px"))


def _too_large(what: str) -> str:
    return f"{what} is above the limit of {MAX_PIXELS // 10**6} million pixels. Make it smaller."


def _as_8_bit(image: Image.Image) -> Image.Image:
    """Mode "L" or "RGB" of any mode that has one meaning."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    wanted = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert(wanted)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode not in _CONVERTIBLE:
        raise UserError(
            f"its pixels are of kind '{image.mode}', which has no fixed range. Save it with "
            f"8 or 16 bits per channel."
        )
    return image.convert(wanted)


def canvas(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """uint8 [I, H', W'] at `resize_to`, before the crop (training crops at random from it)."""
    image = image.convert(_mode(preprocess.channels))
    if preprocess.resize == "none":
        if image.size[::-1] != preprocess.image_hw:
            raise UserError(
                f"Expected an image of {pixels_text(preprocess.image_hw)}, found "
                f"{pixels_text(image.size[::-1])}: set data.resize to 'shortest' or 'squash'."
            )
    else:
        height, width = canvas_size((image.height, image.width), preprocess)
        if height * width > MAX_PIXELS:
            raise UserError(
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


def read(
    path: Path, preprocess: Preprocess, prepare: Callable[[Image.Image, Preprocess], np.ndarray]
) -> np.ndarray:
    """`prepare` (`fit` or `canvas`) of an image file; every error names the file."""
    image = open_image(path)
    try:
        return prepare(image, preprocess)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


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


def _mode(channels: int) -> str:
    if channels not in (1, 3):
        raise UserError(f"Image files have 1 (grey) or 3 (RGB) channels, the model {channels}.")
    return "L" if channels == 1 else "RGB"


def pixels_text(hw: tuple[int, int]) -> str:
    """A (height, width) for people."""
    return f"{hw[1]} × {hw[0]} px (width × height)"
