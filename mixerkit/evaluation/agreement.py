"""Whether a published model measures here what its publishers say."""

from typing import Any

from mixerkit.data.real import IMAGES
from mixerkit.data.splits import ImageSplit
from mixerkit.spec.zoo import Published

TOLERANCE = 0.15
"""Points within which two measurements of the same weights, by the same rule, agree: decoders and
resizers differ. timm measures the paper's two models with another interpolation (bicubic in place
of bilinear), and is 0.18 to 0.35 points away: so much is another way to prepare images."""


def beside_published(
    one: Published, found: dict[str, Any], incomparable: str = ""
) -> dict[str, Any] | None:
    """Top-1 and ReaL accuracy on ImageNet beside what was published of the same model; None where
    nothing was. Everything is in per cent, differences in points.

    `found`: shares in [0, 1], `top1` and its interval, and of `real` the same. `agrees`: whether
    the difference is within `TOLERANCE`; None for figures that are `incomparable`, which says why.
    """
    figures = {}
    for name, published, here in (
        ("top-1", one.top1, found),
        ("ReaL top-1", one.real, found.get("real")),
    ):
        if published is None or here is None:
            continue
        difference = round(100 * here["top1"] - published, 6)  # 76.59 − 76.44 is 0.15, not more
        figures[name] = {
            "here": 100 * here["top1"],
            "interval": [100 * end for end in here["top1_interval"]],
            "published": published,
            "difference": difference,
            "agrees": None if incomparable else abs(difference) <= TOLERANCE,
        }
    if not figures:
        return None
    return {"source": one.source, "incomparable": incomparable, "figures": figures}


def why_incomparable(split: ImageSplit, is_test: bool, left_out: int, own_way: bool) -> str:
    """Why figures on a split of ImageNet say nothing about published ones; empty where they do.

    `is_test`: whether it is the test split, ImageNet's validation images. `left_out`: how many of
    its images cannot be used. `own_way`: whether they were prepared as the publishers did.
    """
    if not is_test or len(split) != IMAGES:
        return (
            f"published figures are of ImageNet's {IMAGES:,} validation images, these are of "
            f"{len(split):,} images of {split.name}"
        )
    if 100 * left_out / IMAGES > TOLERANCE:  # they alone could make the difference
        return f"{left_out:,} of the images cannot be used"
    return "" if own_way else "the images were prepared in another way than by its publishers"
