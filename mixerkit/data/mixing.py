"""Mixing pairs of images: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019).

Letters: N images at hand, B of them to be mixed, G groups that share a draw, I image channels, H
and W height and width, K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixerkit.data.draws import MIX, symmetric_beta, uniforms
from mixerkit.spec.recipe import Augment


@dataclass(frozen=True)
class Place:
    """Which images of a batch are at hand. `batch`: how many images the whole batch has, `first`:
    the position of its first image in the epoch, `positions`: of each image at hand within the
    batch, int64 [N]; the first `own` of them are to be mixed, the others are there as partners."""

    batch: int
    first: int
    positions: np.ndarray
    own: int


def mix(
    images_NIHW: Tensor,
    targets_NK: Tensor,
    augment: Augment,
    seed: int,
    epoch: int,
    place: Place,
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix within groups of consecutive images of the whole batch: the B images that
    are to be mixed, [B, I, H, W], and their targets [B, K].

    Each group draws once, from the position of its first image; the partner of an image is the one
    before it in the group, of the first the last. Groups of one take the image before in the batch
    instead. An image whose partner is not at hand (it may be broken) stays as it is. So every image
    is mixed the same however the batch is divided among processes.
    """
    own = slice(place.own)
    if not (augment.mixup or augment.cutmix):
        return images_NIHW[own], targets_NK[own]
    H, W = images_NIHW.shape[-2:]
    positions_B = place.positions[own]
    size = augment.mix_group or place.batch
    starts, group_B = np.unique(positions_B // size * size, return_inverse=True)
    draws = uniforms(seed, epoch, place.first + starts, 7, MIX)
    weight_GHW = np.ones((len(starts), H, W) if augment.cutmix else (len(starts), 1, 1))
    for weight_HW, draw in zip(weight_GHW, draws, strict=True):
        _weigh(augment, draw, weight_HW)
    weight_BIHW = torch.from_numpy(weight_GHW).float()[group_B][:, None]
    share_BK = torch.from_numpy(weight_GHW.mean((1, 2))).float()[group_B][:, None]
    partner_B = torch.from_numpy(_rows_of_partners(place, size))
    return (
        images_NIHW[own] * weight_BIHW + images_NIHW[partner_B] * (1 - weight_BIHW),
        targets_NK[own] * share_BK + targets_NK[partner_B] * (1 - share_BK),
    )


def partners(positions: np.ndarray, batch: int, augment: Augment) -> np.ndarray:
    """The positions in a batch of so many images that those at `positions` are mixed with, int64;
    none where nothing is mixed."""
    if not (augment.mixup or augment.cutmix):
        return positions[:0]
    return _partners(positions, batch, augment.mix_group or batch)


def _partners(positions: np.ndarray, batch: int, size: int) -> np.ndarray:
    if size == 1:
        return (positions - 1) % batch
    starts = positions // size * size
    return starts + (positions - starts - 1) % np.minimum(size, batch - starts)


def _rows_of_partners(place: Place, size: int) -> np.ndarray:
    """The row of each image's partner, or its own where that is not at hand."""
    rows = np.full(place.batch, -1)
    rows[place.positions] = np.arange(len(place.positions))
    own = place.positions[: place.own]
    found = rows[_partners(own, place.batch, size)]
    return np.where(found < 0, rows[own], found)


def _weigh(augment: Augment, draw: np.ndarray, weight_HW: np.ndarray) -> None:
    """Set one group's weight of the image itself, per pixel; the partner has the rest."""
    if draw[0] >= augment.mix_probability:
        return
    if augment.cutmix and (not augment.mixup or draw[1] < 0.5):
        weight_HW[cutmix_box(augment.cutmix, draw[2:], *weight_HW.shape)] = 0
    else:
        share = symmetric_beta(augment.mixup, draw[None, 2:5])[0]
        weight_HW[:] = max(share, 1 - share)


def cutmix_box(shape: float, draws: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that the partner fills: 1 − a of the area, a from
    Beta(shape, shape), around a uniform centre, cut off at the border.

    `draws`: three for a, two for the centre.
    """
    side = math.sqrt(1 - symmetric_beta(shape, draws[None, :3])[0])
    h, w = round(height * side), round(width * side)
    top, left = int(draws[3] * height) - h // 2, int(draws[4] * width) - w // 2
    return slice(max(0, top), min(height, top + h)), slice(max(0, left), min(width, left + w))


def one_hot(labels_B: np.ndarray, classes: int) -> Tensor:
    """float32 [B, K] with a single 1 in each row."""
    targets_BK = torch.zeros(len(labels_B), classes)
    targets_BK[torch.arange(len(labels_B)), torch.from_numpy(labels_B)] = 1
    return targets_BK
