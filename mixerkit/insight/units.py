"""What token-mixing units look like, in numbers: how wide, how smooth, in pairs of opposite phase?

The paper (section 4.4) says in words that the first layers hold units that act on the whole image
and units that act on a part of it, that many come in pairs of opposite phase, and that deeper
layers show no clear structure. Each of these is a number here, and each has a baseline.

Letters: N units, each a field of h × w weights on the token grid; S = h · w tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixerkit.errors import UserError
from mixerkit.insight.weights import cosines, frequencies, token_weights
from mixerkit.model.mixer import MlpMixer

LOCAL = 0.5
"""A unit whose weights lie within less than this share of the spread of a uniform field is local:
random fields have about 1, a field of one patch 0."""
OPPOSITE = -0.8
"""Two units are of opposite phase when their cosine is below this."""
BANDS = 6


@dataclass(frozen=True)
class Structure:
    """Figures of the units of one block. Shares are in [0, 1].

    `local`: units with a spread below `LOCAL`. `spread`: the median. `partners`: units that have
    one of opposite phase; `partners_shuffled`: the same after the weights of each unit were
    shuffled over the grid. `smoothness`: mean correlation of neighbouring weights, 0 for random
    ones and near 1 for wide waves. `energy`: share of all power in `BANDS` bands of spatial
    frequency, from constant fields to the finest pattern; white noise has `energy_of_noise`.
    """

    block: int
    local: float
    spread: float
    partners: float
    partners_shuffled: float
    smoothness: float
    energy: tuple[float, ...]
    energy_of_noise: tuple[float, ...]


def structure(model: MlpMixer, block: int, seed: int = 0) -> Structure:
    """The figures of a block's units: rows of the matrix that reads the tokens."""
    units_Nhw = token_weights(model, block)
    shuffled_Nhw = shuffled(units_Nhw, seed)
    spread_N = spreads(units_Nhw)
    energy, noise = energy_by_frequency(units_Nhw)
    return Structure(
        block,
        local=float((spread_N < LOCAL).mean()),
        spread=float(np.median(spread_N)),
        partners=float((nearest_negative(units_Nhw) < OPPOSITE).mean()),
        partners_shuffled=float((nearest_negative(shuffled_Nhw) < OPPOSITE).mean()),
        smoothness=float(neighbour_correlation(units_Nhw).mean()),
        energy=tuple(map(float, energy)),
        energy_of_noise=tuple(map(float, noise)),
    )


def shuffled(units_Nhw: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each unit's weights in a random order of its own: what has no structure over the grid."""
    flat_NS = units_Nhw.reshape(len(units_Nhw), -1)
    mixed: np.ndarray = np.random.default_rng(seed).permuted(flat_NS, axis=1)
    return mixed.reshape(units_Nhw.shape)


def spreads(units_Nhw: np.ndarray) -> np.ndarray:
    """[N]: the root mean square distance of a unit's squared weights from their centre, over that
    of a uniform field. A unit that is zero everywhere has 0."""
    height, width = units_Nhw.shape[1:]
    rows_hw, columns_hw = np.mgrid[:height, :width].astype(float)
    mass_Nhw = units_Nhw.astype(float) ** 2

    def radius(mass_Nhw: np.ndarray) -> np.ndarray:
        total_N = mass_Nhw.sum(axis=(1, 2))
        total_N = np.where(total_N > 0, total_N, 1.0)
        variance_N = np.zeros(len(mass_Nhw))
        for place_hw in (rows_hw, columns_hw):
            mean_N = (mass_Nhw * place_hw).sum(axis=(1, 2)) / total_N
            apart_Nhw = (place_hw - mean_N[:, None, None]) ** 2
            variance_N += (mass_Nhw * apart_Nhw).sum(axis=(1, 2)) / total_N
        return np.sqrt(variance_N)

    uniform = radius(np.ones((1, height, width)))[0]
    return radius(mass_Nhw) / max(uniform, 1e-12)


def nearest_negative(units_Nhw: np.ndarray) -> np.ndarray:
    """[N]: each unit's smallest cosine with any other."""
    cosine_NN = cosines(units_Nhw)
    np.fill_diagonal(cosine_NN, np.inf)
    smallest_N: np.ndarray = cosine_NN.min(axis=1)
    return smallest_N


def neighbour_correlation(units_Nhw: np.ndarray) -> np.ndarray:
    """[N]: the mean product of neighbouring weights, down and across, over the mean square: near 1
    for smooth fields, about 0 for random ones, -1 for a chessboard."""
    values = units_Nhw.astype(float)
    down_N = (values[:, 1:] * values[:, :-1]).sum(axis=(1, 2))
    across_N = (values[:, :, 1:] * values[:, :, :-1]).sum(axis=(1, 2))
    pairs = values[0, 1:].size + values[0, :, 1:].size
    square_N = (values**2).mean(axis=(1, 2))
    return (down_N + across_N) / pairs / np.where(square_N > 0, square_N, 1.0)


def energy_by_frequency(units_Nhw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of all units' power in `BANDS` equal bands of spatial frequency, the first one with the
    constant; and the same of white noise, which is each band's share of all frequencies."""
    frequency_hw = frequencies(*units_Nhw.shape[1:])
    band_hw = np.minimum((frequency_hw / 0.7072 * BANDS).astype(int), BANDS - 1)
    power_hw = (np.abs(np.fft.fft2(units_Nhw.astype(float))) ** 2).sum(axis=0)
    energy = np.bincount(band_hw.ravel(), power_hw.ravel(), minlength=BANDS)
    noise = np.bincount(band_hw.ravel(), minlength=BANDS) / band_hw.size
    return energy / max(energy.sum(), 1e-300), noise


def effective_mixing(model: MlpMixer, block: int) -> np.ndarray:
    """[S, S]: how much token t (column) adds to token s (row) through a block's token mixing,
    without its GELU: W2 · W1, or the one matrix of a linear mixer."""
    mixing = model.blocks[block].get_submodule("token_mixing")
    named = dict(mixing.named_parameters())
    if model.config.token_mixer == "linear":
        matrix: Tensor = named["fc.weight"]
    elif model.config.token_mixer == "mlp":
        matrix = named["fc2.weight"] @ named["fc1.weight"]
    else:
        raise UserError(
            f"An effective mixing matrix is drawn for the token mixers mlp and linear, found "
            f"{model.config.token_mixer}."
        )
    return matrix.detach().float().cpu().numpy()


@torch.no_grad()
def influence(model: MlpMixer, image_IHW: Tensor, label: int | None = None) -> np.ndarray:
    """[rows, columns] of the patches: by how much the logit of `label` (the likeliest class, if not
    given) falls when a patch is replaced by the mean of the image, which is prepared as the model
    wants it. Measured, not derived: as many forward passes as there are patches."""
    rows, columns = model.config.grid
    patch_h, patch_w = model.config.patch_hw
    above, before = (  # a padded image starts inside its first patches
        (-image % patch) // 2
        for image, patch in zip(model.config.image_hw, model.config.patch_hw, strict=True)
    )
    was_training = model.training
    model.eval()
    try:
        image_1IHW = image_IHW.unsqueeze(0)
        logits_K = model(image_1IHW)[0]
        chosen = int(logits_K.argmax()) if label is None else label
        blank_I11 = image_IHW.mean(dim=(1, 2), keepdim=True)
        falls = np.zeros((rows, columns))
        for row in range(rows):
            changed = image_1IHW.repeat(columns, 1, 1, 1)
            for column in range(columns):
                top, left = row * patch_h - above, column * patch_w - before
                down, across = (
                    slice(max(0, top), top + patch_h),
                    slice(max(0, left), left + patch_w),
                )
                changed[column, :, down, across] = blank_I11
            falls[row] = (logits_K[chosen] - model(changed)[:, chosen]).cpu().numpy()
    finally:
        model.train(was_training)
    return falls
