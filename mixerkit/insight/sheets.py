"""Sheets of weight pictures: every weight an exact square of pixels, on white paper, under titles.

Drawn with Pillow, pixel by pixel: matplotlib gives the colours and the font.

Letters: N pictures of h × w values; H and W pixels of paper.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixerkit.insight.canvas import DPI, INK, QUIET, style
from mixerkit.insight.weights import Pictures

PAGE = 2000
"""Pixels across, which panels fill as far as whole pixels allow."""
LEAST_ZOOM, MOST_ZOOM = 3, 32
"""Pixels along the side of a weight. Sheets of very many grow wider than `PAGE`."""
MARGIN, BETWEEN = 40, 48
HEADING, TEXT = 28, 23
"""Pixels of the letters: 10 and 8 points at `DPI`."""


@dataclass(frozen=True)
class Panel:
    """Pictures in rows of `columns`, under a title and a quieter line. `paired`: each two
    neighbours belong together, and stand closer."""

    title: str
    pictures: Pictures
    columns: int
    paired: bool = False
    note: str = ""


def sheet(heading: str, about: str, panels: Sequence[Panel], across: int = 1) -> bytes:
    """Panels in rows of `across`, under a heading and a sentence or two, as a PNG file."""
    room = max((PAGE - (across - 1) * BETWEEN) // across, *(_width(p, LEAST_ZOOM) for p in panels))
    drawn = [_drawn(panel, room) for panel in panels]
    rows = [drawn[first : first + across] for first in range(0, len(drawn), across)]
    column = max(part.width for part in drawn)
    width = max(across * (column + BETWEEN) - BETWEEN, PAGE // 2)
    head = _text([(heading, HEADING, INK), (about, TEXT, QUIET)], width)
    heights = [max(part.height for part in row) for row in rows]
    height = head.height + sum(each + BETWEEN for each in heights)
    paper = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), "white")
    paper.paste(head, (MARGIN, MARGIN))
    top = MARGIN + head.height + BETWEEN
    for row, tall in zip(rows, heights, strict=True):
        for i, part in enumerate(row):
            paper.paste(part, (MARGIN + i * (column + BETWEEN), top))
        top += tall + BETWEEN
    file = io.BytesIO()
    paper.save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


def _drawn(panel: Panel, room: int) -> Image.Image:
    """A panel, as large as whole pixels and `room` of them across allow."""
    zoom = max(z for z in range(LEAST_ZOOM, MOST_ZOOM + 1) if _width(panel, z) <= room)
    squares = Image.fromarray(
        contact_sheet(coloured(panel.pictures), panel.columns, zoom, panel.paired)
    )
    texts = [(panel.title, TEXT, INK), (panel.note, TEXT, QUIET)]
    head = _text([text for text in texts if text[0]], max(room, squares.width))
    top = head.height + (TEXT // 2 if head.height else 0)
    paper = Image.new("RGB", (max(squares.width, head.width), top + squares.height), "white")
    paper.paste(head, (0, 0))
    paper.paste(squares, (0, top))
    return paper


def _gap(zoom: int, height: int, width: int) -> int:
    """Pixels between two pictures."""
    return max(2, round(zoom * min(height, width) / 14))


def _width(panel: Panel, zoom: int) -> int:
    """Pixels across of a panel's squares."""
    height, width = panel.pictures.values.shape[1:3]
    gap, pairs = _gap(zoom, height, width), (panel.columns - 1) // 2 if panel.paired else 0
    return panel.columns * (width * zoom + gap) - gap + pairs * gap


def coloured(pictures: Pictures) -> np.ndarray:
    """Pictures in the colours in which they are drawn, uint8 [N, h, w, 3]."""
    if pictures.values.ndim == 4:
        return np.asarray((255 * pictures.values).round(), dtype=np.uint8)
    with style():
        from matplotlib import colormaps

        palette = colormaps["RdBu_r"]
    return np.asarray(palette((pictures.values + 1) / 2, bytes=True)[..., :3])


def contact_sheet(
    colours_Nhw3: np.ndarray, columns: int, zoom: int, paired: bool = False
) -> np.ndarray:
    """All pictures in rows of `columns`, every weight a square of `zoom` pixels, uint8 [H, W, 3],
    white between pictures: twice as much between pairs."""
    count, height, width = colours_Nhw3.shape[:3]
    gap = _gap(zoom, height, width)
    cell_h, cell_w, rows = height * zoom + gap, width * zoom + gap, -(-count // columns)
    more = gap if paired else 0
    across = columns * cell_w - gap + (columns - 1) // 2 * more
    sheet_HW3 = np.full((rows * cell_h - gap, across, 3), 255, np.uint8)
    for i, picture_hw3 in enumerate(colours_Nhw3):
        row, column = divmod(i, columns)
        top, left = row * cell_h, column * cell_w + column // 2 * more
        big = picture_hw3.repeat(zoom, axis=0).repeat(zoom, axis=1)
        sheet_HW3[top : top + height * zoom, left : left + width * zoom] = big
    return sheet_HW3


def sheet_columns(count: int, aspect: float = 2.0) -> int:
    """Columns of a sheet about `aspect` times as wide as high: even, so that pairs stay on one row,
    and dividing `count` when some even number near does."""
    wanted = math.sqrt(aspect * count)
    even = range(2, count + 1, 2)
    full = [n for n in even if count % n == 0 and wanted / 2 <= n <= wanted * 2]
    candidates = full or list(even) or [1]
    return min(candidates, key=lambda n: (abs(math.log(n / wanted)), -n))


Text = tuple[str, int, str]
"""Words, the size of their letters in pixels, and their colour; what is in `INK` is bold."""


def _text(texts: Sequence[Text], width: int) -> Image.Image:
    """Texts one below the other, wrapped to `width` pixels, on a paper that they just fit."""
    lines = [
        (line, _font(size, colour == INK), colour)
        for words, size, colour in texts
        for line in wrapped(words, _font(size, colour == INK), width)
    ]
    across = max((math.ceil(font.getlength(line)) for line, font, _ in lines), default=1)
    height = sum(round(1.45 * font.size) for _, font, _ in lines)
    paper = Image.new("RGB", (across, max(height, 1)), "white")
    pen, top = ImageDraw.Draw(paper), 0
    for line, font, colour in lines:
        pen.text((0, top), line, fill=colour, font=font)
        top += round(1.45 * font.size)
    return paper


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of whole words, at most `width` pixels long where the words are."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib: the same everywhere."""
    with style():
        from matplotlib.font_manager import FontProperties, findfont

        path = findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(path, size)
