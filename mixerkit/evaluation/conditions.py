"""Under which conditions a model's robustness is measured, and the model at other image sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixerkit.checkpoint.foreign import fitted
from mixerkit.checkpoint.merge import assemble
from mixerkit.errors import UserError, unknown
from mixerkit.evaluation.corruption import KINDS as CORRUPTIONS, strengths
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import Enlargement, adapt
from mixerkit.spec.mixer import MixerConfig

KINDS = (*CORRUPTIONS, "size")
FACTORS = (0.5, 0.75, 1.5, 2.0)
"""Other image sizes, as multiples of the model's own."""


@dataclass(frozen=True)
class Condition:
    """One way of showing images. `severity` counts from 1 in each kind; "clean" has 0.

    `strength`: as in `corruption.py`; for "size" the height over that of the model's own.
    `image_hw`: the model's input. `enlargement`: how "size" changes the model.
    """

    kind: str
    severity: int
    strength: float
    image_hw: tuple[int, int]
    enlargement: Enlargement | None = None


def conditions(config: MixerConfig, kinds: Sequence[str]) -> list[Condition]:
    """Clean images first, then every degree of `kinds` (of `KINDS`); `UserError` where the model
    cannot be measured under one of them."""
    own = config.image_hw
    found = [Condition("clean", 0, 0.0, own)]
    for kind in dict.fromkeys(kinds):
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
        _check(config, kind)
        if kind == "size":
            found += sizes(config)
        else:
            degrees = enumerate(strengths(kind, own), 1)
            found += [Condition(kind, severity, strength, own) for severity, strength in degrees]
    return found


def _check(config: MixerConfig, kind: str) -> None:
    problem = ""
    if kind == "shuffle" and config.pad:
        problem = "its patches are filled up at the edges, and cannot change places"
    if kind == "shuffle" and config.num_patches < 2:
        problem = "it has a single patch, which cannot change its place"
    if kind == "jpeg" and config.in_channels not in (1, 3):
        problem = f"JPEG files have 1 or 3 channels, its images {config.in_channels}"
    if problem:
        raise UserError(f"This model cannot be measured under '{kind}': {problem}. Leave it out.")


def sizes(config: MixerConfig) -> list[Condition]:
    """`FACTORS` of the model's size, each side to the nearest multiple of the patch.

    The token mixing is resampled. Whole multiples come a second time, cut into tiles that share
    it (paper, appendix C).
    """
    ways: dict[tuple[int, int], tuple[Enlargement, ...]] = {}
    height, width = config.image_hw
    for factor in FACTORS:
        pairs = zip(config.image_hw, config.patch_hw, strict=True)
        down, across = (max(1, round(factor * side / patch)) * patch for side, patch in pairs)
        whole = down % height == across % width == 0
        if (down, across) != (height, width):
            ways[down, across] = ("resample", "shared") if whole else ("resample",)
    each = [(hw, way) for hw, several in ways.items() for way in several]
    return [
        Condition("size", number, hw[0] / height, hw, way)
        for number, (hw, way) in enumerate(each, 1)
    ]


def at_size(model: MlpMixer, condition: Condition) -> MlpMixer:
    """The same weights for images of another size, by surgery; `model` itself at its own size.

    Images are prepared as the model says, at that size; those that needed no resizing are now
    resized. A token mixer that has one size only is a `UserError`.
    """
    if condition.enlargement is None:
        return model
    try:
        config, tensors = adapt(
            model.config,
            dict(model.state_dict()),
            image_size=condition.image_hw,
            enlargement=condition.enlargement,
        )
    except UserError as error:
        raise UserError(f"{error} Leave out 'size' to measure this model at its own.") from error
    other = assemble(config, tensors).eval()
    assert model.preprocess
    prepared = fitted(model.preprocess, config)
    other.preprocess = replace(prepared, resize="squash") if prepared.resize == "none" else prepared
    return other
