"""Sheets: every weight a square of pixels, pairs together, texts on white paper."""

import io

import numpy as np
import pytest
from PIL import Image

from mixerkit.insight.sheets import (
    BETWEEN,
    LEAST_ZOOM,
    MARGIN,
    Panel,
    contact_sheet,
    sheet,
    sheet_columns,
)
from mixerkit.insight.weights import Pictures


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.load()
        assert image.mode == "RGB"
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        return np.asarray(image)


@pytest.mark.parametrize("aspect", [0.5, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 16, 64, 101, 128, 256, 384, 640, 768, 1280])
def test_sheets_have_their_shape_and_keep_pairs_together(count: int, aspect: float) -> None:
    columns = sheet_columns(count, aspect)
    rows = -(-count // columns)
    assert columns % 2 == 0 or count == 1
    assert columns <= max(count, 2)
    if count >= 16:
        assert aspect / 4 <= columns / rows <= 4 * aspect
    if count in (16, 64, 256, 384, 640, 768, 1280):
        assert columns * rows == count


def test_a_sheet_holds_every_weight_as_a_square_of_pixels() -> None:
    colours = np.arange(3 * 2 * 3 * 3, dtype=np.uint8).reshape(3, 2, 3, 3)
    found = contact_sheet(colours, columns=2, zoom=5)
    for picture, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
        top, left = row * (2 * 5 + 2), column * (3 * 5 + 2)
        cell = found[top : top + 10, left : left + 15]
        big = np.kron(colours[picture], np.ones((5, 5, 1), np.uint8))
        assert np.array_equal(cell, big)
    assert (found[-1, -1] == 255).all()  # the empty place
    assert (found[10:12] == 255).all() and (found[:, 15:17] == 255).all()


def test_pairs_stand_closer() -> None:
    """Between picture columns: one gap inside a pair, two between pairs."""
    found = contact_sheet(np.zeros((8, 3, 3, 3), np.uint8), columns=8, zoom=14, paired=True)
    gaps = np.diff(np.flatnonzero(found[0, :, 0] == 0))
    assert (gaps[gaps > 1] - 1).tolist() == [3, 6, 3, 6, 3, 6, 3]


def test_only_the_palette_is_on_the_paper() -> None:
    values = np.array([[[-1.0, 0.0], [0.0, 1.0]]] * 4)
    image = pixels(sheet("Four units", "", [Panel("", Pictures(values, np.arange(4)), 2)]))
    below_title = image[MARGIN + 41 + BETWEEN :].reshape(-1, 3)
    colours = {tuple(int(v) for v in colour) for colour in np.unique(below_title, axis=0)}
    assert len(colours) == 4  # blue, the middle, red, and the paper
    reds = [colour for colour in colours if colour[0] > 2 * colour[2]]
    blues = [colour for colour in colours if colour[2] > 2 * colour[0]]
    assert (len(reds), len(blues)) == (1, 1)


def test_zero_is_mid_grey_in_colour() -> None:
    values = np.full((2, 3, 3, 3), 0.5)
    image = pixels(sheet("Filters", "", [Panel("", Pictures(values, np.arange(2)), 2)]))
    assert (image == 128).all(axis=2).any()


def margins(image: np.ndarray) -> tuple[int, int, int, int]:
    """White pixels at the top, right, bottom and left."""
    inked = (image < 255).any(axis=2)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    height, width = inked.shape
    return rows[0], width - 1 - columns[-1], height - 1 - rows[-1], columns[0]


@pytest.mark.parametrize(
    ("count", "side", "panels", "across"),
    [
        (1, 1, 1, 1),
        (3, 4, 2, 2),
        (128, 14, 3, 3),
        (640, 16, 2, 1),
        (640, 16, 6, 2),
        (784, 28, 3, 3),
    ],
)
def test_nothing_leaves_the_paper_or_covers_another(
    count: int, side: int, panels: int, across: int
) -> None:
    """Long texts and many units: a white margin all around, and white lines under every text."""
    pictures = Pictures(np.ones((count, side, side)), np.arange(count))
    panel = Panel("A title of several words, " * 3, pictures, sheet_columns(count), note="a note")
    image = pixels(
        sheet("A heading of many words " * 12, "About it. " * 60, [panel] * panels, across)
    )
    assert min(margins(image)) >= MARGIN - 2
    white = (image == 255).all(axis=(1, 2))
    assert white[: MARGIN + 1].all()
    runs = np.diff(np.flatnonzero(~white))
    assert (runs > 1).sum() >= 8  # lines of text, notes and pictures stand apart
    red = (image == image[-MARGIN - 1, MARGIN + 1]).all(axis=2)
    assert red.sum() >= panels * count * (LEAST_ZOOM * side) ** 2  # every picture is there, whole
