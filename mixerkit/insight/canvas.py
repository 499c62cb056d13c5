"""The paper that figures are drawn on: one quiet style, and PNG bytes in the end.

matplotlib is imported inside functions and used through its objects, without pyplot: nothing
global changes and no display is needed.
"""

import importlib.util
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from mixerkit.errors import UserError, how_to_install

DPI = 200
INK, QUIET, RULE, ACCENT = "#1f2328", "#6b7480", "#e4e7eb", "#2563c9"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.unicode_minus": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}


HOW_TO_DRAW = f"matplotlib is not installed: {how_to_install('matplotlib')}"


def can_draw() -> bool:
    """Whether the package that draws is installed; it is not loaded."""
    return importlib.util.find_spec("matplotlib") is not None


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with our settings for the length of one figure."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(HOW_TO_DRAW) from error
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the report has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure of that many inches whose layout fits itself to the texts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def png_bytes(figure: Any) -> bytes:
    """The figure as a PNG file of DPI dots per inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3]
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


def svg_bytes(figure: Any) -> bytes:
    """The figure as an SVG file, the same for the same figure."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mixerkit", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return file.getvalue()


def image_bytes(figure: Any, kind: str) -> bytes:
    """The figure as a file of that kind, "png" or "svg"."""
    return svg_bytes(figure) if kind == "svg" else png_bytes(figure)


def percent(share: float) -> str:
    """A share as people read it: 0.9153 → "91.5 %", with a space that does not break."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def short(name: Any, length: int) -> str:
    """A name on one line and at most `length` characters."""
    text = " ".join(str(name).split())
    return text if len(text) <= length else text[: length - 1] + "…"
