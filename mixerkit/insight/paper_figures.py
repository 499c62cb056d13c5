"""The paper's figures 5, 6 and 7 of any model: sheets of its weights.

Letters: N filters, I image channels, h and w their height and width.
"""

from collections.abc import Sequence

import numpy as np

from mixerkit.insight.sheets import Panel, sheet, sheet_columns
from mixerkit.insight.weights import Pictures, filters, patch_filters, spaced, token_units
from mixerkit.model.mixer import MlpMixer

PAIRS = 64
"""Of a block in figure 5: the paper's shows a part, too, and figure 6 all."""
LONGEST_NAME = 44
"""Characters of where filters are from: the end of a path is what tells."""
SIGNS = "Red adds, white is 0, blue takes away"
GREY_ZERO = "Colours are those that the filter answers to, mid-grey is 0"


def figure_5(model: MlpMixer, blocks: Sequence[int]) -> bytes:
    """Units of the blocks beside one another, at most `PAIRS` pairs of each; of a linear mixer its
    weights, as the patches lie."""
    panels = [_units_panel(model, block, PAIRS, aspect=0.5) for block in blocks]
    return sheet(_units_heading(model), _about_units(model), panels, across=min(3, len(panels)))


def figure_6(model: MlpMixer, blocks: Sequence[int]) -> bytes:
    """All units of the blocks, one below the other, or in two columns where they are many."""
    panels = [_units_panel(model, block) for block in blocks]
    across = 1 if len(panels) < 3 else 2
    return sheet(_units_heading(model), _about_units(model), panels, across)


def figure_7(model: MlpMixer) -> bytes:
    """The patch embedding's filters."""
    pictures = patch_filters(model)
    panel = Panel("", pictures, sheet_columns(len(pictures)))
    return sheet(f"Patch embedding: {_counted(pictures)}", _about_filters(panel), [panel])


def filters_beside(
    model: MlpMixer, name: str, weight_NIhw: np.ndarray, other: str, tensor: str
) -> bytes:
    """The patch embedding's filters of the model called `name`, and in the same order those of
    `tensor` in the network called `other`."""
    panels = [
        Panel(
            f"{title}: {_counted(pictures)}",
            pictures,
            sheet_columns(len(pictures), aspect=0.9),
            note=source if len(source) <= LONGEST_NAME else f"…{source[1 - LONGEST_NAME :]}",
        )
        for title, pictures, source in (
            ("Patch embedding", patch_filters(model), name),
            (tensor, filters(weight_NIhw), other),
        )
    ]
    return sheet("The filters that see the pixels", _about_filters(*panels), panels, across=2)


def _units_panel(model: MlpMixer, block: int, pairs: int = 0, aspect: float = 2.0) -> Panel:
    """The units of a block, or at most so many pairs of them."""
    every = token_units(model, block)
    linear = model.config.token_mixer == "linear"
    shown = spaced(every, pairs) if pairs and not linear else every
    count = str(len(every)) if len(shown) == len(every) else f"{len(shown)} of {len(every)}"
    title = f"Block {block + 1}: {count} {'patches' if linear else 'units'}"
    columns = model.config.tile_grid[1] if linear else sheet_columns(len(shown), aspect)
    return Panel(title, shown, columns, paired=not linear)


def _units_heading(model: MlpMixer) -> str:
    return f"Token-mixing {'weights' if model.config.token_mixer == 'linear' else 'units'}"


def _about_units(model: MlpMixer) -> str:
    grid = " × ".join(map(str, model.config.tile_grid))
    if model.config.token_mixer == "linear":
        return (
            f"Each picture: from where a patch gathers, on the {grid} grid of patches; the "
            f"pictures lie as the patches do. {SIGNS}, each on its own scale."
        )
    return (
        f"Each picture: the input weights of a hidden unit on the {grid} grid of patches. Low "
        f"frequencies first, each unit beside the one nearest to its negative. {SIGNS}, each on "
        f"its own scale."
    )


def _counted(pictures: Pictures) -> str:
    count, height, width = pictures.values.shape[:3]
    return f"{count:,} filters of {height} × {width}"


def _about_filters(*panels: Panel) -> str:
    grey = {panel.pictures.values.ndim == 3 for panel in panels}
    colours = ". ".join(SIGNS if each else GREY_ZERO for each in sorted(grey, reverse=True))
    return f"Low frequencies first. {colours}. Each filter on its own scale."
