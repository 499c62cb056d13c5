"""Images that cannot be used, found before a model sees any: all of them named, not the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixerkit.cli.images import Images
from mixerkit.cli.text import plural
from mixerkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from mixerkit.data.quarantine import Unreadable
    from mixerkit.data.sources import ImageSplit
    from mixerkit.spec.preprocess import Preprocess

MOST_LOOKED_THROUGH = 2_000
"""Images that are all looked at when one is broken: seconds. Of more only the first is named."""
HOW = "--skip-broken measures the others, and says which were left out."


def broken_among(
    split: "ImageSplit", preprocess: "Preprocess", images: Images, indices: "np.ndarray"
) -> "list[Unreadable]":
    """Those at `indices` of a split that cannot be used; each is read and decoded for it."""
    from mixerkit.data.decode import fit
    from mixerkit.data.pixels import Pixels, Reading

    pixels = Pixels(split, preprocess, fit, memory=0)
    return pixels.unreadable(indices, Reading(images.workers, images.patience))


@contextmanager
def broken_ones_named(
    split: "ImageSplit", preprocess: "Preprocess", images: Images
) -> Iterator[None]:
    """Where an image of the split is broken, the error names the first few of all that are, unless
    there are too many images to look at them all."""
    import numpy as np

    from mixerkit.data.decode import BrokenImage
    from mixerkit.data.quarantine import shown

    try:
        yield
    except BrokenImage as error:
        if len(split) > MOST_LOOKED_THROUGH:
            raise UserError(
                f"{error} It is the first that was met: others of the {len(split):,} may be broken "
                f"too. {HOW}"
            ) from error
        found = broken_among(split, preprocess, images, np.arange(len(split)))
        if len(found) < 2:
            raise UserError(f"{error} {HOW}") from error
        raise UserError(
            f"{len(found):,} of {plural(len(split), 'image')} of {split.name} cannot be used: "
            f"{shown(found)}. Replace them by whole copies. {HOW}"
        ) from error


def without(split: "ImageSplit", broken: "list[Unreadable]") -> "ImageSplit":
    """The split's other images; `UserError` where there are none."""
    import numpy as np

    from mixerkit.data.quarantine import none_usable

    if broken and len(broken) == len(split):
        raise none_usable(split, broken)
    kept = np.setdiff1d(np.arange(len(split)), [one.index for one in broken])
    return split.subset(kept) if broken else split
