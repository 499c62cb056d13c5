"""Changes to single training images. Every draw is a pure function of (seed, epoch, index).

Letters: B images in a batch, I image channels, H and W height and width.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixerkit.data.decode import FILTERS, as_IHW
from mixerkit.data.draws import CROP, ERASE, FLIP, NOISE, SHIFT, uniforms
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

ERASE_AREA = (0.02, 0.33)
ERASE_ASPECT = (0.3, 1 / 0.3)
CROP_ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


class BatchDraws:
    """The numbers that decide what happens to each image of a batch.

    `indices`: of the images in their split. Entry b of each list belongs to image b (lists,
    because reading single numbers out of arrays would take most of the time).
    """

    def __init__(self, augment: Augment, seed: int, epoch: int, indices: np.ndarray) -> None:
        self.augment, self.seed, self.epoch, self.indices = augment, seed, epoch, indices
        reach = 2 * augment.shift + 1
        shift = np.floor(self._draw(SHIFT, 2) * reach).astype(np.int64) - augment.shift
        flip = self._draw(FLIP, 1)[:, 0] < (0.5 if augment.flip else 0.0)
        self.shift: list[list[int]] = shift.tolist()
        self.flip: list[bool] = flip.tolist()
        self.place = self._draw(CROP, 2 + 2 * CROP_ATTEMPTS)
        self.erase: list[list[float]] = self._draw(ERASE, 5).tolist()

    def _draw(self, stream: int, count: int) -> np.ndarray:
        return uniforms(self.seed, self.epoch, self.indices, count, stream)

    def cut(self, b: int, canvas_IHW: np.ndarray, out_IHW: np.ndarray) -> None:
        """Fill `out_IHW` with a window of the canvas at a random place, shifted and flipped."""
        (_, H, W), (_, canvas_h, canvas_w) = out_IHW.shape, canvas_IHW.shape
        down, across = self.place[b, :2].tolist()
        shift_y, shift_x = self.shift[b]
        top = int(down * (canvas_h - H + 1)) + shift_y
        left = int(across * (canvas_w - W + 1)) + shift_x
        window(canvas_IHW, top, left, self.flip[b], out_IHW)
        self._erase(b, out_IHW)

    def crop(self, b: int, image: Image.Image, interpolation: str, out_IHW: np.ndarray) -> None:
        """Fill `out_IHW` with an inception crop of the whole image, shifted and flipped."""
        box = inception_box(self.place[b], image.height, image.width, self.augment.crop_area)
        size = (out_IHW.shape[2], out_IHW.shape[1])
        scaled = as_IHW(image.resize(size, FILTERS[interpolation], box=box))
        top, left = self.shift[b]
        window(scaled, top, left, self.flip[b], out_IHW)
        self._erase(b, out_IHW)

    def _erase(self, b: int, out_IHW: np.ndarray) -> None:
        chance, *draws = self.erase[b]
        if chance >= self.augment.erase:
            return
        top, left, height, width = erase_box(draws, *out_IHW.shape[1:])
        box = out_IHW[:, top : top + height, left : left + width]
        noise = uniforms(self.seed, self.epoch, self.indices[b : b + 1], box.size, NOISE)
        box[:] = (noise * 256).astype(np.uint8).reshape(box.shape)


def window(canvas_IHW: np.ndarray, top: int, left: int, flip: bool, out_IHW: np.ndarray) -> None:
    """Copy the window of `out_IHW`'s size at (top, left) of the canvas, mirrored if `flip`.

    What lies outside the canvas stays as it is in `out_IHW`. A loop of such copies takes a
    quarter to a fortieth of the time of gathering by index (docs/log.md).
    """
    (_, H, W), (_, canvas_h, canvas_w) = out_IHW.shape, canvas_IHW.shape
    first_row, end_row = max(0, -top), min(H, canvas_h - top)
    first, end = max(0, -left), min(W, canvas_w - left)
    if end_row <= first_row or end <= first:
        return
    target = out_IHW[:, :, ::-1] if flip else out_IHW
    target[:, first_row:end_row, first:end] = canvas_IHW[
        :, top + first_row : top + end_row, left + first : left + end
    ]


def inception_box(
    draws: np.ndarray, height: int, width: int, area: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random box: a share `area` of the image, aspect from 3/4
    to 4/3 (uniform in its logarithm). The first of ten tries that fits; else the whole image.

    `draws`: two for the place, then two for each try.
    """
    shares = area[0] + draws[2::2] * (area[1] - area[0])
    low, high = math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])
    aspects = np.exp(low + draws[3::2] * (high - low))
    widths = np.rint(np.sqrt(shares * height * width * aspects)).astype(int)
    heights = np.rint(np.sqrt(shares * height * width / aspects)).astype(int)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if not fits.any():
        return 0, 0, width, height
    w, h = int(widths[fits.argmax()]), int(heights[fits.argmax()])
    top, left = int(draws[0] * (height - h + 1)), int(draws[1] * (width - w + 1))
    return left, top, left + w, top + h


def erase_box(draws: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a box of 2–33 % of the area, aspect 0.3 to 3.3, cut to the
    image where it is too long. `draws`: area, aspect, place down, place across."""
    area = (ERASE_AREA[0] + draws[0] * (ERASE_AREA[1] - ERASE_AREA[0])) * height * width
    low, high = math.log(ERASE_ASPECT[0]), math.log(ERASE_ASPECT[1])
    aspect = math.exp(low + draws[1] * (high - low))
    h = min(height, max(1, round(math.sqrt(area / aspect))))
    w = min(width, max(1, round(math.sqrt(area * aspect))))
    return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w


def normalise(images_BIHW: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 [B, I, H, W] → float32, (x / 255 − mean) / std per channel."""
    mean = torch.tensor(preprocess.mean, dtype=torch.float32).view(-1, 1, 1)
    std = torch.tensor(preprocess.std, dtype=torch.float32).view(-1, 1, 1)
    return images_BIHW.float().div_(255).sub_(mean).div_(std)
