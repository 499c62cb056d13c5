"""RandAugment as the paper's authors ran it (big_vision's `randaug`, shared facts §4): operations
drawn from sixteen at one magnitude, each always applied. Neither torchvision's nor timm's.

Letters: I image channels, H and W height and width. Images are uint8 [I, H, W].
"""

import math
from collections.abc import Callable

import numpy as np

FILL = 128
"""What moves into the image, and what a cut-out box holds."""
DRAWS = 4
"""Numbers that one operation takes: which one, its sign, and where a box is cut out."""

_GRAY = np.array([0.2989, 0.587, 0.114], np.float32)
_LEVELS = np.arange(256, dtype=np.float32)


def randaugment(image_IHW: np.ndarray, draws: np.ndarray, magnitude: float) -> np.ndarray:
    """A changed copy: one operation for each row of `draws`, uniform in [0, 1), [count, DRAWS].

    `magnitude` is the paper's: 10, 15 or 20; levels beyond 10 go on as they grow below.
    """
    for draw in draws:
        operation = OPERATIONS[int(draw[0] * len(OPERATIONS))]
        image_IHW = operation(image_IHW, magnitude, draw[1:])
    return image_IHW


Operation = Callable[[np.ndarray, float, np.ndarray], np.ndarray]
"""(image, magnitude, [sign, top, left] as uniform draws) → image."""


# -- one new value for each old one -------------------------------------------------------


def invert(image_IHW: np.ndarray, _: float, __: np.ndarray) -> np.ndarray:
    """The negative."""
    return 255 - image_IHW


def posterize(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Keep the highest int(0.4 m) bits; from 8 on, all."""
    lost = max(0, 8 - int(0.4 * magnitude))
    return image_IHW >> lost << lost


def solarize(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Invert what is not below int(25.6 m); from m = 10 on, nothing is."""
    return np.where(image_IHW < int(25.6 * magnitude), image_IHW, 255 - image_IHW)


def solarize_add(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Add int(11 m) to what is below 128, up to 255."""
    table = np.arange(256)
    table[:128] = np.minimum(table[:128] + int(11 * magnitude), 255)
    return table.astype(np.uint8)[image_IHW]


def auto_contrast(image_IHW: np.ndarray, _: float, __: np.ndarray) -> np.ndarray:
    """Stretch each channel so that it goes from 0 to 255."""
    out_IHW = image_IHW.copy()
    for channel_HW in out_IHW:
        low, high = float(channel_HW.min()), float(channel_HW.max())
        if high > low:
            scale = np.float32(255 / (high - low))
            stretched = _LEVELS * scale - np.float32(low) * scale
            channel_HW[:] = _as_uint8(stretched)[channel_HW]
    return out_IHW


def equalize(image_IHW: np.ndarray, _: float, __: np.ndarray) -> np.ndarray:
    """Spread each channel's values so that all are about equally frequent."""
    out_IHW = image_IHW.copy()
    for channel_HW in out_IHW:
        counts = np.bincount(channel_HW.ravel(), minlength=256)
        step = (channel_HW.size - counts[np.flatnonzero(counts)[-1]]) // 255
        if step:
            below = np.concatenate([[0], np.cumsum(counts)[:-1] + step // 2]) // step
            channel_HW[:] = np.minimum(below, 255).astype(np.uint8)[channel_HW]
    return out_IHW


def brightness(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Away from black."""
    return _as_uint8(_LEVELS * _factor(magnitude))[image_IHW]


def contrast(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Away from one gray. The authors average a histogram's counts where the image's mean is meant,
    so that the gray is H·W / 256 whatever the image shows; from 256 × 256 pixels on it is white."""
    gray = np.float32(int(min(255, image_IHW[0].size / 256)))
    return _as_uint8(gray + _factor(magnitude) * (_LEVELS - gray))[image_IHW]


# -- one new value from several -----------------------------------------------------------


def color(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Away from the image in shades of gray."""
    if len(image_IHW) != 3:
        return image_IHW  # it is gray already
    shades_HW = np.tensordot(_GRAY, image_IHW.astype(np.float32) / 255, 1)
    gray_HW = (shades_HW * np.float32(255.5)).astype(np.uint8)
    return _blend(gray_HW[None], image_IHW, magnitude)


def sharpness(image_IHW: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """Away from a smooth image: each pixel five times and its eight neighbours once, over 13; the
    pixels at the edge stay as they are."""
    _, H, W = image_IHW.shape
    if H < 3 or W < 3:
        return image_IHW
    source_IHW = image_IHW.astype(np.float32)
    total_IHW = 4 * source_IHW[:, 1:-1, 1:-1]
    for top in range(3):
        for left in range(3):
            total_IHW += source_IHW[:, top : top + H - 2, left : left + W - 2]
    smooth_IHW = image_IHW.copy()
    smooth_IHW[:, 1:-1, 1:-1] = _as_uint8(total_IHW / 13)
    return _blend(smooth_IHW, image_IHW, magnitude)


def _blend(plain_IHW: np.ndarray, image_IHW: np.ndarray, magnitude: float) -> np.ndarray:
    """From `plain` towards the image: a factor below 1 stops before it, one above goes beyond."""
    plain = plain_IHW.astype(np.float32)
    return _as_uint8(plain + _factor(magnitude) * (image_IHW.astype(np.float32) - plain))


def _factor(magnitude: float) -> np.float32:
    return np.float32(0.18 * magnitude + 0.1)


def _as_uint8(values: np.ndarray) -> np.ndarray:
    """Cut to 0–255, and the fractions cut off."""
    return np.clip(values, 0, 255).astype(np.uint8)


# -- pixels that move ---------------------------------------------------------------------


def rotate(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """By 3 m degrees either way, about the middle."""
    _, H, W = image_IHW.shape
    angle = math.radians(_sign(draw) * 3 * magnitude)
    sine, cosine = math.sin(angle), math.cos(angle)
    middle_y, middle_x = (H - 1) / 2, (W - 1) / 2
    return _moved(
        image_IHW,
        (cosine, sine, middle_y - cosine * middle_y - sine * middle_x),
        (-sine, cosine, middle_x + sine * middle_y - cosine * middle_x),
    )


def shear_x(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """Each row by 0.03 m pixels further to the side than the row above."""
    return _moved(image_IHW, (1, 0, 0), (_sign(draw) * 0.03 * magnitude, 1, 0))


def shear_y(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """Each column by 0.03 m pixels further down or up than the one to its left."""
    return _moved(image_IHW, (1, _sign(draw) * 0.03 * magnitude, 0), (0, 1, 0))


def translate_x(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """By 10 m pixels to either side, whatever the size of the image."""
    return _moved(image_IHW, (1, 0, 0), (0, 1, _sign(draw) * 10 * magnitude))


def translate_y(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """By 10 m pixels up or down, whatever the size of the image."""
    return _moved(image_IHW, (1, 0, _sign(draw) * 10 * magnitude), (0, 1, 0))


def _sign(draw: np.ndarray) -> float:
    return -1.0 if draw[0] < 0.5 else 1.0


Row = tuple[float, float, float]


def _moved(image_IHW: np.ndarray, from_y: Row, from_x: Row) -> np.ndarray:
    """Each pixel (y, x) from the nearest one to the place (a·y + b·x + c) that the two rows (a, b,
    c) give; `FILL` where that is outside. Half a pixel is rounded away from zero."""
    _, H, W = image_IHW.shape
    y_H1, x_1W = np.arange(H, dtype=np.float64)[:, None], np.arange(W, dtype=np.float64)
    source_y, source_x = (_nearest(a * y_H1 + b * x_1W + c) for a, b, c in (from_y, from_x))
    inside = (source_y >= 0) & (source_y < H) & (source_x >= 0) & (source_x < W)
    places = np.where(inside, source_y * W + source_x, 0)
    out_IHW = image_IHW.reshape(len(image_IHW), -1)[:, places]
    out_IHW[:, ~inside] = FILL
    return out_IHW


def _nearest(places: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.trunc(places + np.copysign(0.5, places)).astype(np.int64)
    return rounded


def cutout(image_IHW: np.ndarray, magnitude: float, draw: np.ndarray) -> np.ndarray:
    """A box of int(4 m) pixels to each side of a random pixel, as far as it lies in the image."""
    _, H, W = image_IHW.shape
    half, y, x = int(4 * magnitude), int(draw[1] * H), int(draw[2] * W)
    out_IHW = image_IHW.copy()
    out_IHW[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = FILL
    return out_IHW


OPERATIONS: tuple[Operation, ...] = (
    *(auto_contrast, equalize, invert, rotate, posterize, solarize, color, contrast),
    *(brightness, sharpness, shear_x, shear_y, translate_x, translate_y, cutout, solarize_add),
)
