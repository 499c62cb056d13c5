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
from mixerkit.data.decode import canvas, fit, from_array, in_channels, read
from mixerkit.data.draws import shuffled, shuffled_in_blocks
from mixerkit.data.mixing import Place, mix, one_hot, partners
from mixerkit.data.pixels import Pixels, Read, Reading, read_batches
from mixerkit.data.quarantine import Unreadable, none_usable
from mixerkit.data.readers import PATIENCE, Poll, Work, nothing
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment


@dataclass(frozen=True)
class Batch:
    """`images`: float32 [B, I, H, W]. `targets`: float32 [B, K], soft when images were mixed;
    each row sums to 1. `unreadable`: what would belong to the batch and was left out. `positions`:
    of the images in the whole batch, int64 [B]; None where they are all of it."""

    images: Tensor
    targets: Tensor
    unreadable: tuple[Unreadable, ...] = ()
    positions: np.ndarray | None = None


def _order(split: ImageSplit, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits a split's images."""
    blocks = split.blocks()
    if blocks is None:
        return shuffled(seed, epoch, len(split))
    return shuffled_in_blocks(seed, epoch, blocks, split.together)


class TrainLoader:
    """Shuffled, augmented batches of a split; an epoch's last partial batch is left out.

    `workers`: threads that decode and resize, 0 for one per processor; images that are in
    memory already need none. `memory`: GiB of decoded images that may be kept. `patience`:
    seconds without any image read, while one is waited for, after which `RunFailed` is raised.
    `poll` is called while images are waited for, and may raise. `scaled`: JPEGs are decoded at a
    half, quarter or eighth of their size where that is enough.

    The first broken image raises `BrokenImage`. With `skip_broken` batches are smaller by the
    broken ones instead and name them, down to none at all.

    Of several processes each takes its `part` of every batch: (0, 1) is the whole, (2, 4) the third
    quarter. Together they see what one process sees.
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
        patience: float = PATIENCE,
        skip_broken: bool = False,
        poll: Poll = nothing,
        part: tuple[int, int] = (0, 1),
        scaled: bool = False,
    ) -> None:
        rank, parts = part
        if batch_size % parts:
            raise UserError(
                f"batch_size {batch_size} must be a multiple of the {parts} processes that share "
                f"it."
            )
        if batch_size > len(split):
            raise UserError(
                f"batch_size {batch_size} is larger than the {len(split)} images of "
                f"{split.name}: use at most {len(split)}."
            )
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.batch_size, self.seed = batch_size, seed
        size = batch_size // parts
        own = np.arange(rank * size, (rank + 1) * size)
        others = np.setdiff1d(partners(own, batch_size, augment), own)
        self.own, self.positions = size, np.concatenate([own, others])
        self.reading = Reading(workers, patience, skip_broken, poll)
        self.steps_per_epoch = len(split) // batch_size
        self.scaled = scaled
        self.pixels = Pixels(split, preprocess, canvas, memory, scaled)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of that epoch; the same ones however it began."""
        if not 0 <= start <= self.steps_per_epoch:
            raise ValueError(f"start must be from 0 to {self.steps_per_epoch}, found {start}")
        order = _order(self.split, self.seed, epoch)
        steps = range(start, self.steps_per_epoch)
        batches = [order[step * self.batch_size + self.positions] for step in steps]
        read = self._read(epoch, batches)
        with closing(read):
            for step, wanted, found in zip(steps, batches, read, strict=True):
                yield self._batch(epoch, step * self.batch_size, wanted, found)

    def _batch(self, epoch: int, first: int, wanted: np.ndarray, found: Read) -> Batch:
        """What was `found` of the indices `wanted`, augmented and mixed; `first`: the position of
        the batch's first image in the epoch."""
        indices, pixels, unreadable = found
        is_here = np.isin(wanted, indices)
        own = int(is_here[: self.own].sum())
        named = tuple(one for one in unreadable if one.index in wanted[: self.own])
        if not own:
            return self._empty(named)
        pixels_NIHW = self._augmented(epoch, indices, pixels)
        images_NIHW = normalise(torch.from_numpy(pixels_NIHW), self.preprocess)
        targets_NK = one_hot(self.split.labels[indices], len(self.split.class_names))
        place = Place(self.batch_size, first, self.positions[is_here], own)
        mixed = mix(images_NIHW, targets_NK, self.augment, self.seed, epoch, place)
        return Batch(*mixed, named, place.positions[:own])

    def problems(self, indices: np.ndarray) -> dict[int, str]:
        """Why images of the split cannot be used now, by their index."""
        return self.pixels.problems(indices, self.reading)

    def _read(self, epoch: int, batches: list[np.ndarray]) -> Generator[Read]:
        """The whole image of each, or an inception crop of it."""
        if self.augment.crop == "none":
            return self.pixels.batches(batches, self.reading)

        def begin(indices: np.ndarray) -> list[Work]:
            draws = BatchDraws(self.augment, self.seed, epoch, indices)
            return [partial(self._crop, draws, b) for b in range(len(indices))]

        return read_batches(self.split, batches, begin, self.reading)

    def _augmented(
        self, epoch: int, indices: np.ndarray, pixels: Sequence[np.ndarray] | np.ndarray
    ) -> np.ndarray:
        """uint8 [B, I, H, W]: crops as they are, windows cut out of whole images."""
        if self.augment.crop == "inception":
            return np.array(pixels)
        draws = BatchDraws(self.augment, self.seed, epoch, indices)
        return draws.cut(pixels, self.preprocess.image_hw)

    def _empty(self, unreadable: tuple[Unreadable, ...]) -> Batch:
        images_BIHW = torch.zeros(0, self.preprocess.channels, *self.preprocess.image_hw)
        return Batch(images_BIHW, torch.zeros(0, len(self.split.class_names)), unreadable)

    def _crop(self, draws: BatchDraws, b: int) -> np.ndarray:
        """uint8 [I, H, W]: a crop of image `b` of a batch."""
        index, images = int(draws.indices[b]), self.split.images
        stored: list[tuple[int, int]] = []  # the size in the file, where less may be decoded

        def crop(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
            out_IHW = np.zeros((preprocess.channels, *preprocess.image_hw), np.uint8)
            whole = in_channels(image, preprocess.channels)
            draws.crop(b, whole, preprocess.interpolation, out_IHW, *stored)
            return out_IHW

        def least(image_hw: tuple[int, int]) -> tuple[int, int]:
            stored.append(image_hw)
            return draws.least(b, image_hw, self.preprocess.image_hw)

        if images is None:
            path = self.split.paths[index]
            return read(path, self.preprocess, crop, least if self.scaled else None)
        return crop(from_array(images[index]), self.preprocess)


class EvaluationLoader:
    """All images of a split in order: (float32 [B, I, H, W], int64 labels [B]) batches.

    The first broken image raises `BrokenImage`. With `skip_broken` they are left out instead:
    once all batches were taken, `unreadable` names them and `usable` gives the indices of the
    others. `RunFailed` and `poll` as of `TrainLoader`.

    Of several processes each takes its `part`: (1, 4) every fourth image from the second on.
    """

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        *,
        batch_size: int,
        workers: int = 0,
        memory: float = 2.0,
        patience: float = PATIENCE,
        skip_broken: bool = False,
        poll: Poll = nothing,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.split, self.preprocess = split, preprocess
        self.own = np.arange(part[0], len(split), part[1])
        self.batch_size, self.reading = batch_size, Reading(workers, patience, skip_broken, poll)
        self.pixels = Pixels(split, preprocess, fit, memory)
        self.unreadable: list[Unreadable] = []

    def __len__(self) -> int:
        return -(-len(self.own) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.unreadable = []
        batches = np.split(self.own, range(self.batch_size, len(self.own), self.batch_size))
        for indices, images, unreadable in self.pixels.batches(batches, self.reading):
            self.unreadable += unreadable
            if not len(indices):
                continue
            images_BIHW = np.array(images, order="C")  # one layout, however they are stored
            labels_B = torch.from_numpy(self.split.labels[indices])
            yield normalise(torch.from_numpy(images_BIHW), self.preprocess), labels_B
        if self.unreadable and len(self.unreadable) == len(self.split):
            raise none_usable(self.split, self.unreadable)

    @property
    def usable(self) -> np.ndarray:
        """Indices of the images that the batches held, int64, in their order."""
        left_out = np.array([one.index for one in self.unreadable], np.int64)
        return np.setdiff1d(self.own, left_out)

    def is_broken(self, index: int) -> bool:
        """Whether an image of the split cannot be used now."""
        return bool(self.pixels.problem(index, self.reading))

    def picture(self, index: int) -> np.ndarray:
        """One image of the split as the model sees it before normalisation, uint8 [I, H, W]."""
        return self.pixels.one(index, self.reading)
