"""Whether a published model measures here what its publishers say."""

from typing import Any

from mixerkit.spec.zoo import PUBLISHED

ROUNDING = 0.1
"""Points within which two measurements of the same weights agree: other decoders and resizers."""


def beside_published(model: str, data: str, found: dict[str, Any]) -> dict[str, Any] | None:
    """Top-1 and ReaL accuracy beside what was published, in per cent and points, for a zoo model on
    ImageNet; None where nothing was. They agree within `ROUNDING`, or where the interval of ours
    holds the published figure."""
    one = PUBLISHED.get(model.removeprefix("zoo:")) if model.startswith("zoo:") else None
    if one is None or data != "imagenet":
        return None
    low, high = found["top1_interval"]
    real = found.get("real") or {}
    figures = {}
    for name, published, here, width in (
        ("top-1", one.top1, found["top1"], 100 * (high - low) / 2),
        ("ReaL top-1", one.real, real.get("top1"), 100 * (high - low) / 2),
    ):
        if published is None or here is None:
            continue
        difference = 100 * here - published
        figures[name] = {
            "here": here,
            "published": published,
            "difference": difference,
            "agrees": abs(difference) <= max(ROUNDING, width),
        }
    return {"source": one.source, "figures": figures} if figures else None
