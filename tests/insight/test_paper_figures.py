"""The paper's figures, read back from their pixels: which weight is where."""

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from mixerkit.insight.paper_figures import PAIRS, figure_5, figure_6, figure_7, filters_beside
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig

SIDE = 14
PALETTE = colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3].astype(int)


def wave(cycles: int, side: int = SIDE, phase: float = 0.0) -> np.ndarray:
    """Waves across a grid: frequency `cycles` / `side`."""
    return np.tile(np.cos(2 * np.pi * cycles * np.arange(side) / side + phase), (side, 1))


def model_of(units_Thw: np.ndarray, **settings: object) -> MlpMixer:
    """A model of two blocks that both have these units, in orders of their own."""
    config = MixerConfig(
        image_size=SIDE, patch_size=1, in_channels=1, width=8, depth=2, channel_width=8,
        token_width=len(units_Thw), **settings,
    )  # fmt: skip
    model = MlpMixer(config)
    draw = np.random.default_rng(0)
    for block in model.blocks:
        flat = units_Thw.reshape(len(units_Thw), -1)[draw.permutation(len(units_Thw))]
        with torch.no_grad():
            block.token_mixing.fc1.weight.copy_(torch.from_numpy(flat))
    return model


def opposed(waves: int) -> np.ndarray:
    """Waves of 0, 1, 2 … cycles, each of them with its negative, of any strength: the weak ones
    come first, so that strength and place say nothing."""
    pairs = [
        (10.0 ** (2 - k) * wave(k, phase=0.4), -(3.0 ** (k - 2)) * wave(k, phase=0.4))
        for k in range(waves)
    ]
    return np.array(pairs).reshape(-1, SIDE, SIDE)


def runs(marked: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def pictures_in(png: bytes, height: int, width: int) -> list[list[np.ndarray]]:
    """The pictures of weights in [-1, 1] on a sheet, row by row as they lie. Texts are too thin to
    be taken for one: a picture is at least three pixels for each of its weights."""
    with Image.open(io.BytesIO(png)) as opened:
        image = np.asarray(opened).astype(int)
    inked = (image < 255).any(axis=2)
    high = [(a, b) for a, b in runs(inked.any(axis=1)) if b - a >= 3 * height]
    rows = []
    for top, bottom in high:
        zoom = (bottom - top) // height
        wide = [(a, b) for a, b in runs(inked[top]) if b - a == zoom * width]
        middle_h = top + zoom // 2 + zoom * np.arange(height)
        cells = [image[np.ix_(middle_h, a + zoom // 2 + zoom * np.arange(width))] for a, _ in wide]
        rows.append([as_values(cell) for cell in cells])
    return [row for row in rows if row]


def as_values(colours_hw3: np.ndarray) -> np.ndarray:
    """Colours of the palette back to [-1, 1]."""
    apart = np.abs(colours_hw3[:, :, None] - PALETTE).sum(axis=3)
    assert apart.min(axis=2).max() == 0  # no colour in between
    return apart.argmin(axis=2) / 127.5 - 1


def cycles_of(picture: np.ndarray) -> tuple[int, int]:
    """(cycles, sign) of the planted wave that a picture shows."""
    likeness = [
        (abs(np.vdot(picture, one)) / np.linalg.norm(picture) / np.linalg.norm(one), k, one)
        for k in range(SIDE // 2)
        for one in [wave(k, phase=0.4)]
    ]
    score, cycles, one = max(likeness, key=lambda found: found[0])
    assert score > 0.99
    return cycles, int(np.sign(np.vdot(picture, one)))


def test_the_sheet_shows_pairs_of_opposites_from_low_to_high_frequency() -> None:
    """Read from the pixels of figure 6: each wave beside its negative, in the order of cycles."""
    rows = pictures_in(figure_6(model_of(opposed(7)), [0, 1]), SIDE, SIDE)
    shown = [cycles_of(picture) for row in rows for picture in row]
    assert len(shown) == 2 * 14
    for block in (shown[:14], shown[14:]):
        assert [cycles for cycles, _ in block] == [k for k in range(7) for _ in range(2)]
        assert all(
            one == -other for (_, one), (_, other) in zip(block[::2], block[1::2], strict=True)
        )


def test_blocks_stand_beside_one_another_in_figure_5() -> None:
    rows = pictures_in(figure_5(model_of(opposed(4)), [0, 1]), SIDE, SIDE)
    columns = len(rows[0]) // 2
    for part in (slice(0, columns), slice(columns, None)):
        shown = [cycles_of(picture)[0] for row in rows for picture in row[part]]
        assert shown == [0, 0, 1, 1, 2, 2, 3, 3]


def test_of_many_units_figure_5_shows_pairs_from_all_frequencies() -> None:
    """Thirty equal pairs of each wave: the first and the last kind are on the sheet, in pairs."""
    many = np.concatenate([opposed(7)] * 30) * np.random.default_rng(1).uniform(
        0.5, 2, size=(420, 1, 1)
    )
    rows = pictures_in(figure_5(model_of(many), [0]), SIDE, SIDE)
    shown = [cycles_of(picture) for row in rows for picture in row]
    cycles = [one for one, _ in shown]
    assert len(shown) == 2 * PAIRS
    assert cycles == sorted(cycles) and set(cycles) == set(range(7))
    assert all(one == -other for (_, one), (_, other) in zip(shown[::2], shown[1::2], strict=True))


def test_many_blocks_take_two_columns_and_stay_legible() -> None:
    model = model_of(opposed(7))
    rows = pictures_in(figure_6(model, [0, 1, 0, 1, 1]), SIDE, SIDE)
    assert sum(map(len, rows)) == 5 * 14
    with Image.open(io.BytesIO(figure_6(model, [0, 1, 0, 1, 1]))) as opened:
        assert opened.width < 2200


def test_linear_mixers_are_drawn_as_the_patches_lie() -> None:
    config = MixerConfig(
        image_size=(3, 4), patch_size=1, width=4, depth=1, channel_width=4, token_mixer="linear"
    )
    model = MlpMixer(config)
    with torch.no_grad():
        model.blocks[0].token_mixing.fc.weight.copy_(torch.eye(12))
    for figure in (figure_5, figure_6):
        rows = pictures_in(figure(model, [0]), 3, 4)
        places = [[np.argwhere(p > 0.9).tolist() for p in row] for row in rows]
        assert places == [[[[r, c]] for c in range(4)] for r in range(3)]


def test_figure_7_and_the_cnn_beside_it_have_one_order() -> None:
    """Left the patch embedding, right the CNN's filters, each from low to high frequency."""
    config = MixerConfig(
        image_size=28, patch_size=14, in_channels=1, width=6, depth=1, token_width=4,
        channel_width=4,
    )  # fmt: skip
    model = MlpMixer(config)
    with torch.no_grad():
        for place, cycles in enumerate([5, 0, 3, 6, 1, 2]):
            field = torch.from_numpy(0.1 ** (3 - cycles) * wave(cycles, phase=0.4))
            model.stem.weight[place, 0] = field
    theirs_N1hw = np.stack([wave(k, phase=0.4) for k in (4, 1, 6, 2)])[:, None]
    beside = filters_beside(model, "ours", theirs_N1hw, "theirs", "conv1.weight")
    first, second, third = pictures_in(beside, 14, 14)
    left, right = [*first[:2], *second[:2], *third], [*first[2:], *second[2:]]
    assert [cycles_of(picture)[0] for picture in left] == [0, 1, 2, 3, 5, 6]
    assert [cycles_of(picture)[0] for picture in right] == [1, 2, 4, 6]
    alone = [picture for row in pictures_in(figure_7(model), 14, 14) for picture in row]
    assert [cycles_of(picture)[0] for picture in alone] == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("channels", [1, 3])
def test_kinds_of_filters_stand_beside_one_another(channels: int) -> None:
    config = MixerConfig(
        image_size=28, patch_size=7, in_channels=3, width=6, depth=1, token_width=4, channel_width=4
    )
    theirs = np.random.default_rng(0).normal(size=(64, channels, 3, 3))
    png = filters_beside(MlpMixer(config), "ours", theirs, "a/very/long/path/" * 9, "features.0")
    with Image.open(io.BytesIO(png)) as opened:
        colours = len(np.unique(np.asarray(opened).reshape(-1, 3), axis=0))
    assert colours > 100
