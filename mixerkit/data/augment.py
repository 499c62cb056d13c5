"""Changes to single training images. Every draw is a pure function of (seed, epoch, index).

Letters: B images in a batch, I image channels, H and W height and width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import Tensor

from mixerkit.data.decode import FILTERS, as_IHW
from mixerkit.data.draws import CROP, ERASE, FLIP, NOISE, RANDAUGMENT, SHIFT, uniforms
from mixerkit.data.randaugment import DRAWS, randaugment
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment

ERASE_AREA = (0.02, 0.33)
ERASE_ASPECT = (0.3, 1 / 0.3)
CROP_ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10

SMALL_CANVAS = 6144  # bytes with the margins; above, one by one takes less time (measured)


class BatchDraws:
    """The numbers that decide what happens to each image of a batch; row b belongs to image b.

    `indices`: of the images in their split. What the augmentation does not use is not drawn.
    """

    def __init__(self, augment: Augment, seed: int, epoch: int, indices: np.ndarray) -> None:
        self.augment, self.seed, self.epoch, self.indices = augment, seed, epoch, indices
        B, reach = len(indices), 2 * augment.shift + 1
        self.shift_B2 = np.zeros((B, 2), np.int64)
        if augment.shift:
            self.shift_B2 += np.floor(self._draw(SHIFT, 2) * reach).astype(np.int64) - augment.shift
        self.flip_B = np.zeros(B, bool)
        if augment.flip:
            self.flip_B = self._draw(FLIP, 1)[:, 0] < 0.5
        if augment.crop == "inception":
            self.crop_place = self._draw(CROP, 2 + 2 * CROP_ATTEMPTS)
        count = augment.randaugment_count if augment.randaugment else 0
        self.operations = self._draw(RANDAUGMENT, count * DRAWS).reshape(B, count, DRAWS)
        self.erase = self._draw(ERASE, 5) if augment.erase else np.ones((B, 5))

    def _draw(self, stream: int, count: int) -> np.ndarray:
        return uniforms(self.seed, self.epoch, self.indices, count, stream)

    def cut(self, canvases: Sequence[np.ndarray] | np.ndarray, hw: tuple[int, int]) -> np.ndarray:
        """uint8 [B, I, H, W]: a window of each canvas at a random place, shifted and flipped.

        `canvases`: uint8 [I, H', W'] each; one array [B, I, H', W'] is faster.
        """
        is_array = isinstance(canvases, np.ndarray)
        channels, margin = len(canvases[0]), self.augment.shift
        sizes = np.array([canvas.shape[1:] for canvas in (canvases[:1] if is_array else canvases)])
        corners_B2 = self.shift_B2
        if (sizes > hw).any():
            corners_B2 = corners_B2 + (self._draw(CROP, 2) * (sizes - hw + 1)).astype(np.int64)
        if is_array and channels * (sizes[0] + 2 * margin).prod() <= SMALL_CANVAS:
            out_BIHW = small_windows(np.asarray(canvases), corners_B2, self.flip_B, margin, hw)
        else:
            out_BIHW = np.zeros((len(canvases), channels, *hw), np.uint8)
            corners, flips = corners_B2.tolist(), self.flip_B.tolist()
            for b, ((top, left), flip) in enumerate(zip(corners, flips, strict=True)):
                window(canvases[b], top, left, flip, out_BIHW[b])
        for b in range(len(out_BIHW)) if self.augment.randaugment or self.augment.erase else ():
            self._change(b, out_BIHW[b])
        return out_BIHW

    def least(self, b: int, image_hw: tuple[int, int], hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) to which image `b` of `image_hw` may be scaled before its crop to `hw`
        would have to be enlarged."""
        left, top, right, bottom = self._box(b, *image_hw)
        (height, width), (out_h, out_w) = image_hw, hw
        return (
            math.ceil(height * min(1.0, out_h / (bottom - top))),
            math.ceil(width * min(1.0, out_w / (right - left))),
        )

    def _box(self, b: int, height: int, width: int) -> tuple[int, int, int, int]:
        return inception_box(self.crop_place[b], height, width, self.augment.crop_area)

    def crop(
        self,
        b: int,
        image: Image.Image,
        interpolation: str,
        out_IHW: np.ndarray,
        stored_hw: tuple[int, int] | None = None,
    ) -> None:
        """Fill `out_IHW` with an inception crop of the whole image, shifted and flipped. Of one
        that was made smaller in decoding: the box of the image as it is stored."""
        height, width = stored_hw or (image.height, image.width)
        down, across = image.height / height, image.width / width
        left, top, right, bottom = self._box(b, height, width)
        box = (left * across, top * down, right * across, bottom * down)
        size = (out_IHW.shape[2], out_IHW.shape[1])
        if self.augment.crop_antialias:
            resized = image.resize(size, FILTERS[interpolation], box=box)
        else:
            whole_pixels = (round(box[0]), round(box[1]), round(box[2]), round(box[3]))
            resized = sampled(image.crop(whole_pixels), size, interpolation)
        scaled = as_IHW(resized)
        top, left = self.shift_B2[b].tolist()
        window(scaled, top, left, bool(self.flip_B[b]), out_IHW)
        self._change(b, out_IHW)

    def _change(self, b: int, out_IHW: np.ndarray) -> None:
        """What is done to the pixels of a window once it is cut and mirrored."""
        if self.augment.randaugment:
            out_IHW[:] = randaugment(out_IHW, self.operations[b], self.augment.randaugment)
        if self.erase[b, 0] < self.augment.erase:
            self._erase(b, out_IHW)

    def _erase(self, b: int, out_IHW: np.ndarray) -> None:
        top, left, height, width = erase_box(self.erase[b, 1:].tolist(), *out_IHW.shape[1:])
        box = out_IHW[:, top : top + height, left : left + width]
        noise = uniforms(self.seed, self.epoch, self.indices[b : b + 1], box.size, NOISE)
        box[:] = (noise * 256).astype(np.uint8).reshape(box.shape)


def sampled(image: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """The image at (width, height) `size`; each new pixel depends on its nearest neighbours alone,
    however many lie between two of them: TensorFlow's resizing without antialiasing."""
    whole = (0, 0, *image.size)
    return image.transform(size, Image.Transform.EXTENT, whole, FILTERS[interpolation])


def small_windows(
    canvases_BIHW: np.ndarray,
    corners_B2: np.ndarray,
    flip_B: np.ndarray,
    margin: int,
    hw: tuple[int, int],
) -> np.ndarray:
    """uint8 [B, I, H, W]: what `window` does, for all canvases in one go.

    `corners_B2`: (top, left), at most `margin` outside the canvas.
    """
    *outer, canvas_h, canvas_w = canvases_BIHW.shape
    padded_BIHW = np.zeros((*outer, canvas_h + 2 * margin, canvas_w + 2 * margin), np.uint8)
    padded_BIHW[:, :, margin : margin + canvas_h, margin : margin + canvas_w] = canvases_BIHW
    everywhere = sliding_window_view(padded_BIHW, hw, (2, 3))
    top_B, left_B = corners_B2.T + margin
    out_BIHW = everywhere[np.arange(len(top_B)), :, top_B, left_B]
    out_BIHW[flip_B] = out_BIHW[flip_B][..., ::-1]
    return out_BIHW


def window(canvas_IHW: np.ndarray, top: int, left: int, flip: bool, out_IHW: np.ndarray) -> None:
    """Copy the window of `out_IHW`'s size at (top, left) of the canvas, mirrored if `flip`.

    What lies outside the canvas stays as it is in `out_IHW`.
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
