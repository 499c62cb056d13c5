"""What weights that are drawn look like, in numbers: how wide, how smooth, in pairs of opposite
phase?

The paper (section 4.4) says in words that the first layers hold units that act on the whole image
and units that act on a part of it, that many come in pairs of opposite phase, and that deeper
layers show no clear structure. Each of these is a number here, and each has a baseline.

Letters: N units or filters, each a field of h × w weights: of one on the token grid, of I channels
on the pixels of a patch. S = h · w places.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixerkit.errors import UserError
from mixerkit.insight.weights import channelled, cosines, frequencies, mean_frequency, token_weights
from mixerkit.model.mixer import MlpMixer

LOCAL, WIDE = 0.5, 0.8
"""A field whose weights lie within less than the first share of the spread of a uniform one is
local; one with more than the second acts on the whole. Random fields have about 1, a field of one
place 0."""
OPPOSITE = -0.8
"""Two fields are of opposite phase when their cosine is below this."""
BANDS = 6


@dataclass(frozen=True)
class Structure:
    """Figures of `count` fields of `height` × `width` weights. Shares are in [0, 1]; `…_shuffled`
    is the same after the weights of each field were shuffled over its places.

    `local`: fields with a spread below `LOCAL`; `wide`: above `WIDE`; `spread`: the median.
    `partners`: fields that have one of opposite phase. `smoothness`: mean correlation of
    neighbouring weights, near 1 for wide waves. `frequency`: the median of `mean_frequency`, in
    cycles per place. `energy`: share of all power in `BANDS` bands of spatial frequency, from
    constant fields to the finest pattern. White noise has `frequency_of_noise` and
    `energy_of_noise`.
    """

    count: int
    height: int
    width: int
    local: float
    local_shuffled: float
    wide: float
    wide_shuffled: float
    spread: float
    partners: float
    partners_shuffled: float
    smoothness: float
    smoothness_shuffled: float
    frequency: float
    frequency_of_noise: float
    energy: tuple[float, ...]
    energy_of_noise: tuple[float, ...]


def structure(model: MlpMixer, block: int) -> Structure:
    """The figures of a block's units: rows of the matrix that reads the tokens."""
    return structure_of(token_weights(model, block))


def structure_of(fields: np.ndarray, seed: int = 0) -> Structure:
    """The figures of any fields, [N, h, w] or [N, I, h, w]; `seed` is for the shuffling."""
    mixed = shuffled(fields, seed)
    spread_N, of_mixed_N = spreads(fields), spreads(mixed)
    alive_N = fields.reshape(len(fields), -1).any(axis=1)
    energy, noise = energy_by_frequency(fields)
    height, width = fields.shape[-2:]
    return Structure(
        len(fields),
        height,
        width,
        local=float(((spread_N < LOCAL) & alive_N).mean()),
        local_shuffled=float(((of_mixed_N < LOCAL) & alive_N).mean()),
        wide=float((spread_N > WIDE).mean()),
        wide_shuffled=float((of_mixed_N > WIDE).mean()),
        spread=float(np.median(spread_N)),
        partners=float((nearest_negative(fields) < OPPOSITE).mean()),
        partners_shuffled=float((nearest_negative(mixed) < OPPOSITE).mean()),
        smoothness=float(neighbour_correlation(fields).mean()),
        smoothness_shuffled=float(neighbour_correlation(mixed).mean()),
        frequency=_median_frequency(fields),
        frequency_of_noise=float(frequencies(height, width).mean()),
        energy=tuple(map(float, energy)),
        energy_of_noise=tuple(map(float, noise)),
    )


def _median_frequency(fields: np.ndarray) -> float:
    """Of the fields that are not zero everywhere; 0 where all are."""
    found_N = mean_frequency(fields)
    found_N = found_N[np.isfinite(found_N)]
    return float(np.median(found_N)) if len(found_N) else 0.0


def shuffled(fields: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each field's weights in a random order of its own, the same for its channels: what has no
    structure over its places."""
    flat_NIS = channelled(fields).reshape(len(fields), -1, fields.shape[-2] * fields.shape[-1])
    order_NS = np.random.default_rng(seed).random(flat_NIS[:, 0].shape).argsort(axis=1)
    return np.take_along_axis(flat_NIS, order_NS[:, None], axis=2).reshape(fields.shape)


def spreads(fields: np.ndarray) -> np.ndarray:
    """[N]: the root mean square distance of a field's squared weights from their centre, over that
    of a uniform field. A field that is zero everywhere has 0, and so has one of a single place."""
    mass_Nhw = (channelled(fields) ** 2).sum(axis=1)
    uniform = _radii(np.ones((1, *mass_Nhw.shape[1:])))[0]
    return _radii(mass_Nhw) / max(uniform, 1e-12)


def _radii(mass_Nhw: np.ndarray) -> np.ndarray:
    """[N]: root mean square distance of masses from their centre, in places."""
    total_N = mass_Nhw.sum(axis=(1, 2))
    total_N = np.where(total_N > 0, total_N, 1.0)
    variance_N = np.zeros(len(mass_Nhw))
    for place_hw in np.mgrid[: mass_Nhw.shape[1], : mass_Nhw.shape[2]].astype(float):
        mean_N = (mass_Nhw * place_hw).sum(axis=(1, 2)) / total_N
        apart_Nhw = (place_hw - mean_N[:, None, None]) ** 2
        variance_N += (mass_Nhw * apart_Nhw).sum(axis=(1, 2)) / total_N
    radius_N: np.ndarray = np.sqrt(variance_N)
    return radius_N


def nearest_negative(fields: np.ndarray) -> np.ndarray:
    """[N]: each field's smallest cosine with any other."""
    cosine_NN = cosines(fields)
    np.fill_diagonal(cosine_NN, np.inf)
    smallest_N: np.ndarray = cosine_NN.min(axis=1)
    return smallest_N


def neighbour_correlation(fields: np.ndarray) -> np.ndarray:
    """[N]: the mean product of neighbouring weights, down and across, over the mean square: near 1
    for smooth fields, about 0 for random ones, -1 for a chessboard. 0 without neighbours."""
    values = channelled(fields)
    down_N = (values[..., 1:, :] * values[..., :-1, :]).sum(axis=(1, 2, 3))
    across_N = (values[..., 1:] * values[..., :-1]).sum(axis=(1, 2, 3))
    pairs = values[0, :, 1:].size + values[0, ..., 1:].size
    square_N = (values**2).mean(axis=(1, 2, 3))
    return (down_N + across_N) / max(pairs, 1) / np.where(square_N > 0, square_N, 1.0)


def energy_by_frequency(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of all fields' power in `BANDS` equal bands of spatial frequency, the first one with
    the constant; and the same of white noise, which is each band's share of all frequencies."""
    frequency_hw = frequencies(*fields.shape[-2:])
    band_hw = np.minimum((frequency_hw / 0.7072 * BANDS).astype(int), BANDS - 1)
    power_hw = (np.abs(np.fft.fft2(channelled(fields))) ** 2).sum(axis=(0, 1))
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
