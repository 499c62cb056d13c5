"""Weights as pictures (paper, figures 5 to 7): plain arrays, ready to be drawn.

Letters: C channels, I image channels, P patch side, S patches (tokens), T token-mixing units,
N pictures of h × w values.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.token_mixers import TokenLinear, TokenMlp


@dataclass(frozen=True)
class Pictures:
    """Small pictures in the order in which they are drawn; `order[i]` is the row of the weight
    matrix that picture i shows.

    `values` are [N, h, w] in [-1, 1] with zero in the middle of a diverging colour map, or
    [N, h, w, 3] in [0, 1] as RGB with zero at mid-grey. Each picture has its own scale.
    """

    values: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)


def patch_filters(model: MlpMixer) -> Pictures:
    """The patch embedding's C filters as P × P pictures, low frequencies first (figure 7)."""
    return filters(stem_weight(model))


def stem_weight(model: MlpMixer) -> np.ndarray:
    """The patch embedding's filters, [C, I, P, P]."""
    weight_CIPP: np.ndarray = model.stem.weight.detach().float().cpu().numpy()
    return weight_CIPP


def filters(weight_NIhw: np.ndarray) -> Pictures:
    """Any filters that see an image, low frequencies first.

    Three image channels are drawn as RGB. Any other number is summed over the channels: what
    the filter answers to a grey patch.
    """
    order_N = np.argsort(mean_frequency(weight_NIhw), kind="stable")
    ordered = weight_NIhw[order_N]
    if weight_NIhw.shape[1] == 3:
        return Pictures(0.5 + 0.5 * _to_unit_range(ordered.transpose(0, 2, 3, 1)), order_N)
    return Pictures(_to_unit_range(ordered.sum(axis=1)), order_N)


def has_token_weights(model: MlpMixer) -> bool:
    """Whether there is something for `token_units` to draw."""
    return model.config.token_mixer in ("mlp", "linear")


def token_units(model: MlpMixer, block: int) -> Pictures:
    """The token-mixing units of a block, each one's input weights on the token grid (figure 5).

    Low frequencies first, and each unit followed by the one closest to its negative. A linear
    token mixer has no hidden units: its S pictures are drawn in raster order, picture s showing
    which patches token s gathers from.
    """
    units_Thw = token_weights(model, block)
    linear = model.config.token_mixer == "linear"
    order_T = np.arange(len(units_Thw)) if linear else pair_opposites(units_Thw)
    return Pictures(_to_unit_range(units_Thw[order_T]), order_T)


def token_weights(model: MlpMixer, block: int) -> np.ndarray:
    """Each token-mixing unit's input weights on the token grid of a tile, [T, h, w]."""
    mixing = model.blocks[block].get_submodule("token_mixing")
    weight_TS = _token_weight(mixing).weight.detach().float().cpu().numpy()
    return weight_TS.reshape(len(weight_TS), *model.config.tile_grid)


def _token_weight(mixing: nn.Module) -> nn.Linear:
    if isinstance(mixing, TokenMlp):
        return mixing.fc1
    if isinstance(mixing, TokenLinear):
        return mixing.fc
    raise UserError(
        f"Token-mixing weights can be drawn for the token mixers mlp and linear, found "
        f"{type(mixing).__name__}."
    )


def channelled(pictures: np.ndarray) -> np.ndarray:
    """[N, h, w] or [N, I, h, w] → [N, I, h, w] in float64."""
    return pictures.reshape(len(pictures), -1, *pictures.shape[-2:]).astype(np.float64)


def mean_frequency(pictures: np.ndarray) -> np.ndarray:
    """The centroid of each picture's power spectrum, [N], in cycles per pixel: a constant has 0.

    `pictures` are [N, h, w], or [N, I, h, w] whose channels' powers are added. A picture that
    is zero everywhere has no frequency and sorts last (infinity).
    """
    power_Nhw = (np.abs(np.fft.fft2(channelled(pictures))) ** 2).sum(axis=1)
    total_N = power_Nhw.sum(axis=(1, 2))
    weighted_N = (power_Nhw * frequencies(*power_Nhw.shape[1:])).sum(axis=(1, 2))
    frequency_N = np.full(len(pictures), np.inf)
    np.divide(weighted_N, total_N, out=frequency_N, where=total_N > 0)
    return frequency_N


def frequencies(height: int, width: int) -> np.ndarray:
    """[h, w]: the spatial frequency of each coefficient of `np.fft.fft2`, in cycles per pixel."""
    frequency_hw: np.ndarray = np.hypot(
        np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    )
    return frequency_hw


def cosines(pictures: np.ndarray) -> np.ndarray:
    """[N, N]: how alike two pictures are, whatever their strength: 1 the same, -1 opposite, 0 for a
    picture that is zero everywhere."""
    flat_NS = pictures.reshape(len(pictures), -1).astype(np.float64)
    length_N1 = np.linalg.norm(flat_NS, axis=1, keepdims=True)
    unit_NS = np.divide(flat_NS, length_N1, out=np.zeros_like(flat_NS), where=length_N1 > 0)
    alike_NN: np.ndarray = unit_NS @ unit_NS.T
    return alike_NN


def pair_opposites(pictures_Nhw: np.ndarray) -> np.ndarray:
    """Indices [N]: the lowest frequency left, then the picture left that is closest to its
    negative (both at length 1, so that strength does not count), and so on."""
    by_frequency = [int(i) for i in np.argsort(mean_frequency(pictures_Nhw), kind="stable")]
    likeness_NN = cosines(pictures_Nhw)
    order: list[int] = []
    while by_frequency:
        first = by_frequency.pop(0)
        order.append(first)
        if by_frequency:
            opposite = min(by_frequency, key=lambda other: likeness_NN[first, other])
            by_frequency.remove(opposite)
            order.append(opposite)
    return np.array(order)


def spaced(pictures: Pictures, pairs: int) -> Pictures:
    """At most so many pairs, evenly over the order; the first and the last are among them."""
    count = -(-len(pictures) // 2)
    if count <= pairs:
        return pictures
    first = 2 * np.linspace(0, count - 1, pairs).round().astype(int)
    chosen = np.stack([first, first + 1], axis=1).ravel()
    chosen = chosen[chosen < len(pictures)]
    return Pictures(pictures.values[chosen], pictures.order[chosen])


def _to_unit_range(pictures: np.ndarray) -> np.ndarray:
    """Each picture divided by its largest absolute value: [-1, 1], zero stays zero."""
    axes = tuple(range(1, pictures.ndim))
    largest = np.abs(pictures).max(axis=axes, keepdims=True)
    scaled = np.zeros_like(pictures)
    np.divide(pictures, largest, out=scaled, where=largest > 0)
    return scaled
