"""What a model costs by the number of patches: B/16 at growing image sizes, one image at a time.

The token mixing of a Mixer grows with the image in one of three ways; its channel mixing, and all
of a ViT but the products of attention, are linear in the patches.
"""

from collections.abc import Sequence
from math import log
from statistics import linear_regression, median
from typing import Any

from mixerkit.benchmark.architectures import FORMS, Architecture, built, forward, priced
from mixerkit.benchmark.workload import Say
from mixerkit.timer import interleave

SIZES = ((256, 15), (512, 9), (768, 5), (1024, 5))
"""Sides of the image in pixels, each with its rounds; the first is that of one tile."""
QUICK_SIZES = ((32, 2), (64, 2))
PATCH = 16


def contenders(image_size: int, native_size: int) -> dict[str, Architecture]:
    """The models that are compared at one size, by family."""
    mixers = {
        f"Mixer, {words}": Architecture(
            "Mixer-B/16", image_size, form=form, native_size=native_size
        )
        for form, words in FORMS.items()
    }
    return mixers | {"ViT": Architecture("ViT-B/16", image_size, "vit_base_patch16_224")}


def measure_size(image_size: int, native_size: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each family at one size, all timed in turns."""
    families = contenders(image_size, native_size)
    models = built(list(families.values()))
    seconds = interleave(
        {name: forward(models[one.title], image_size, 1) for name, one in families.items()},
        rounds=rounds,
        warmup=1,
    )
    return [
        {
            "part": "patches",
            "family": name,
            "image_size": image_size,
            "patches": (image_size // PATCH) ** 2,
            "parameters": parameters,
            "gmacs": macs / 1e9,
            "seconds": median(seconds[name]),
            "rounds": rounds,
        }
        for name, one in families.items()
        for parameters, macs in [priced(one)]
    ]


def measure_sizes(sizes: Sequence[tuple[int, int]], say: Say) -> list[dict[str, Any]]:
    """The rows of every size."""
    rows = []
    native_size = sizes[0][0]
    for image_size, rounds in sizes:
        found = measure_size(image_size, native_size, rounds)
        for row in found:
            say(sentence(row))
        rows += found
    return rows


def exponents(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """With which power of the number of patches each family grows: over all sizes, and between the
    two largest, where what is linear hides less of the rest."""
    found = []
    for family in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == family]
        found.append(
            {
                "part": "exponents",
                "family": family,
                "seconds": slope(own, "seconds"),
                "macs": slope(own, "gmacs"),
                "seconds_of_largest_two": slope(own[-2:], "seconds"),
                "macs_of_largest_two": slope(own[-2:], "gmacs"),
            }
        )
    return found


def slope(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Of log(value) over log(patches), by least squares."""
    patches = [log(row["patches"]) for row in rows]
    return linear_regression(patches, [log(row[key]) for row in rows]).slope


def sentence(row: dict[str, Any]) -> str:
    """A row for a person."""
    return (
        f"{row['patches']} patches, {row['family']}: {row['seconds'] * 1e3:.0f} ms an image, "
        f"{row['gmacs']:.1f} GMACs"
    )
