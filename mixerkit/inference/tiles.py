"""Images of any size at least the model's own: overlapping tiles, and the mean of what is said.

Where the image is a whole multiple and nothing overlaps, this is the shared enlargement of the
paper's appendix C (`model/surgery.py`). Letters: B images, I channels, K classes.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mixerkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mixerkit.model.mixer import MlpMixer

OVERLAP = 0.25


def tiled_logits(
    model: "MlpMixer", x_BIHW: "Tensor", *, overlap: float = OVERLAP, batch_size: int = 32
) -> "Tensor":
    """Logits [B, K]: the mean over evenly spaced tiles of the model's size that cover the image.

    Neighbours overlap by at least `overlap` (0 to below 1) of a tile's side; `batch_size` tiles
    are computed at once. Raises `UserError` for an image smaller than a tile.
    """
    import torch

    found: Tensor = over_tiles(
        lambda tiles: model(torch.cat(tiles)), x_BIHW, model.config.image_hw, overlap, batch_size
    )
    return found


def over_tiles(
    logits_of: Callable[[list[Any]], Any],
    x_BIHW: Any,
    tile_hw: tuple[int, int],
    overlap: float = OVERLAP,
    batch_size: int = 32,
) -> Any:
    """The mean of `logits_of` tiles, each [B, I, *tile_hw], for images in a tensor or an array."""
    if not 0 <= overlap < 1 or batch_size < 1:
        raise UserError(
            f"Expected an overlap of at least 0 and below 1 and a batch_size of at least 1, found "
            f"{overlap!r} and {batch_size!r}."
        )
    (height, width), sides = tile_hw, tuple(x_BIHW.shape[-2:])
    if sides[0] < height or sides[1] < width:
        raise UserError(
            f"Expected images of at least {height} × {width} px, found {sides[0]} × {sides[1]}: "
            f"enlarge them first."
        )
    places = [
        (top, left)
        for top in starts(sides[0], height, overlap)
        for left in starts(sides[1], width, overlap)
    ]
    at_once = max(1, batch_size // max(1, len(x_BIHW)))
    total: Any = 0
    for first in range(0, len(places), at_once):
        chosen = places[first : first + at_once]
        tiles = [x_BIHW[:, :, top : top + height, left : left + width] for top, left in chosen]
        logits = logits_of(tiles)
        total = total + logits.reshape(len(tiles), -1, logits.shape[-1]).sum(0)
    return total / len(places)


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles of `side` begin so that they cover `length` evenly, the ends included."""
    step = side * (1 - overlap)
    count = 1 + math.ceil((length - side) / step - 1e-9)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
