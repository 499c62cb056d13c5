"""Batches for training and for evaluation.

Sample order and augmentation are a pure function of (seed, epoch, index): where a run stands
is two whole numbers, and the number of decoding threads changes nothing but the speed.
Letters: B images in a batch, I image channels, H and W height and width, K classes.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixerkit.data.augment import BatchDraws, normalise
from mixerkit.data.decode import canvas, fit, from_array, open_image
from mixerkit.data.draws import shuffled
from mixerkit.data.mixing import mix, one_hot
from mixerkit.data.pixels import Pixels, Work, fetch
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment, Recipe


@dataclass(frozen=True)
class Batch:
    """`images`: float32 [B, I, H, W]. `targets`: float32 [B, K], soft when images were mixed;
    each row sums to 1."""

    images: Tensor
    targets: Tensor


def preprocess_for(recipe: Recipe, class_names: Sequence[str]) -> Preprocess:
    """The preprocessing that a recipe's model and data settings ask for."""
    data, model = recipe.data, recipe.model
    if data.resize == "none" and data.resize_to:
        raise UserError(
            f"data.resize_to is {data.resize_to}, but data.resize is 'none': set data.resize "
            f"to 'shortest' or 'squash', or leave data.resize_to out."
        )
    return Preprocess(
        image_size=model.image_size,
        channels=model.in_channels,
        resize=data.resize,
        resize_to=data.resize_to,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
        class_names=tuple(class_names),
    )


# Indices of a batch's images and their augmented pixels, uint8 [B, I, H, W].
Augmented = Generator[tuple[np.ndarray, np.ndarray], None, None]


class TrainLoader:
    """Shuffled, augmented batches of a split; an epoch's last partial batch is left out.

    `workers`: threads that decode and resize, 0 for one per processor; images that are in
    memory already need none. `memory`: GiB of decoded images that may be kept.
    """

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        memory: float = 2.0,
    ) -> None:
        if batch_size > len(split):
            raise UserError(
                f"batch_size {batch_size} is larger than the {len(split)} images of "
                f"{split.name}: use at most {len(split)}."
            )
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.steps_per_epoch = len(split) // batch_size
        self.pixels = Pixels(split, preprocess, canvas, memory)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of that epoch; the same ones however it began."""
        if not 0 <= start <= self.steps_per_epoch:
            raise ValueError(f"start must be from 0 to {self.steps_per_epoch}, found {start}")
        order = shuffled(self.seed, epoch, len(self.split))
        batches = [
            order[step * self.batch_size : (step + 1) * self.batch_size]
            for step in range(start, self.steps_per_epoch)
        ]
        whole = self.augment.crop == "inception"
        augmented = self._cropped(epoch, batches) if whole else self._windows(epoch, batches)
        with closing(augmented):
            for step, (indices, pixels_BIHW) in enumerate(augmented, start):
                images_BIHW = normalise(torch.from_numpy(pixels_BIHW), self.preprocess)
                targets_BK = one_hot(self.split.labels[indices], len(self.split.class_names))
                first = step * self.batch_size
                mixed = mix(images_BIHW, targets_BK, self.augment, self.seed, epoch, first)
                yield Batch(*mixed)

    def _windows(self, epoch: int, batches: list[np.ndarray]) -> Augmented:
        """Windows cut out of the canvases."""
        for indices, canvases in self.pixels.batches(batches, self.workers):
            draws = BatchDraws(self.augment, self.seed, epoch, indices)
            yield indices, draws.cut(canvases, self.preprocess.image_hw)

    def _cropped(self, epoch: int, batches: list[np.ndarray]) -> Augmented:
        """Inception crops of the whole images."""

        def begin(indices: np.ndarray) -> list[Work]:
            draws = BatchDraws(self.augment, self.seed, epoch, indices)
            return [partial(self._crop, draws, b) for b in range(len(indices))]

        for indices, pixels in fetch(batches, begin, self.workers):
            yield indices, np.concatenate(pixels)

    def _crop(self, draws: BatchDraws, b: int) -> np.ndarray:
        image = self._image(int(draws.indices[b]))
        shape = (1, self.preprocess.channels, *self.preprocess.image_hw)
        pixels_1IHW = np.zeros(shape, np.uint8)
        draws.crop(b, image, self.preprocess.interpolation, pixels_1IHW[0])
        return pixels_1IHW

    def _image(self, index: int) -> Image.Image:
        """The whole image in the model's channels."""
        images = self.split.images
        image = open_image(self.split.paths[index]) if images is None else from_array(images[index])
        return image.convert("L" if self.preprocess.channels == 1 else "RGB")


class EvaluationLoader:
    """All images of a split in order: (float32 [B, I, H, W], int64 labels [B]) batches."""

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        *,
        batch_size: int,
        workers: int = 0,
        memory: float = 2.0,
    ) -> None:
        self.split, self.preprocess = split, preprocess
        self.batch_size, self.workers = batch_size, workers
        self.pixels = Pixels(split, preprocess, fit, memory)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        numbers = np.arange(len(self.split))
        batches = np.split(numbers, numbers[self.batch_size :: self.batch_size])
        for indices, images in self.pixels.batches(batches, self.workers):
            images_BIHW = np.array(images, order="C")  # one layout, however they are stored
            labels_B = torch.from_numpy(self.split.labels[indices])
            yield normalise(torch.from_numpy(images_BIHW), self.preprocess), labels_B

    def picture(self, index: int) -> np.ndarray:
        """One image as the model sees it before normalisation, uint8 [I, H, W]."""
        return self.pixels.one(index)
