"""Mixing pairs of images: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019).

Letters: B images in a batch, G groups that share a draw, I image channels, H and W height and
width, K classes.
"""

import math

import numpy as np
import torch
from torch import Tensor

from mixerkit.data.draws import MIX, symmetric_beta, uniforms
from mixerkit.spec.recipe import Augment


def mix(
    images_BIHW: Tensor,
    targets_BK: Tensor,
    augment: Augment,
    seed: int,
    epoch: int,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix within groups of consecutive images; `first` is the position of the
    batch's first image in the epoch.

    Each group draws once, from the position of its first image; the partners are the group
    rolled by one. Groups of one take the batch rolled by one instead.
    """
    if not (augment.mixup or augment.cutmix):
        return images_BIHW, targets_BK
    B, _, H, W = images_BIHW.shape
    size = augment.mix_group or B
    starts = np.arange(0, B, size)
    draws = uniforms(seed, epoch, first + starts, 7, MIX)
    weight_GHW = np.ones((len(starts), H, W) if augment.cutmix else (len(starts), 1, 1))
    for weight_HW, draw in zip(weight_GHW, draws, strict=True):
        _weigh(augment, draw, weight_HW)
    group_B, partner_B = torch.arange(B) // size, _partners(B, size)
    weight_BIHW = torch.from_numpy(weight_GHW).float()[group_B][:, None]
    share_BK = torch.from_numpy(weight_GHW.mean((1, 2))).float()[group_B][:, None]
    return (
        images_BIHW * weight_BIHW + images_BIHW[partner_B] * (1 - weight_BIHW),
        targets_BK * share_BK + targets_BK[partner_B] * (1 - share_BK),
    )


def _weigh(augment: Augment, draw: np.ndarray, weight_HW: np.ndarray) -> None:
    """Set one group's weight of the image itself, per pixel; the partner has the rest."""
    if draw[0] >= augment.mix_probability:
        return
    if augment.cutmix and (not augment.mixup or draw[1] < 0.5):
        weight_HW[cutmix_box(augment.cutmix, draw[2:], *weight_HW.shape)] = 0
    else:
        share = symmetric_beta(augment.mixup, draw[None, 2:5])[0]
        weight_HW[:] = max(share, 1 - share)


def _partners(count: int, size: int) -> Tensor:
    """int64 [B]: the index of each image's partner."""
    if size == 1:
        return torch.arange(count).roll(1)
    return torch.cat([group.roll(1) for group in torch.split(torch.arange(count), size)])


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
