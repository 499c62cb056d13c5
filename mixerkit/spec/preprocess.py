"""How an image file becomes a model's input: saved with every model and used everywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mixerkit.errors import UserError
from mixerkit.spec.choices import check_choices, check_whole
from mixerkit.spec.mixer import MixerConfig, Size, as_pair, collapsed
from mixerkit.spec.recipe import Recipe


@dataclass(frozen=True)
class Preprocess:
    """From decoded pixels to the input tensor, and from logits to class names.

    `image_size`: the model's input, one side or (height, width) in pixels.
    `resize`: "squash" scales both sides to `resize_to`, then takes the centre (the paper's
    resize-crop); "shortest" scales the short side to `resize_to` and keeps the aspect
    (resmall-crop); "none" takes images that already have `image_size`.
    `resize_to`: the side in pixels before the centre crop; 0 means `image_size` itself.
    `mean`, `std`: of pixel values scaled to [0, 1], one number or one per channel; 0.5 and
    0.5 give the authors' [-1, 1].
    `channels`: 1 for grey, 3 for RGB (other counts: arrays only, no image files).
    `class_names`: by label index; empty when unknown.
    """

    image_size: Size = 224
    channels: int = 3
    resize: Literal["squash", "shortest", "none"] = "shortest"
    resize_to: int = 0
    interpolation: Literal["bilinear", "bicubic", "nearest", "box"] = "bilinear"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std", "class_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "image_size", collapsed(self.image_size, "image_size"))
        check_whole("channels", self.channels, least=1)
        check_whole("resize_to", self.resize_to, least=0)
        check_choices(self)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise UserError(
                    f"{name} needs 1 number or one for each of the {self.channels} channels, "
                    f"found {len(values)}."
                )
            if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise UserError(f"{name} must be finite numbers, found {list(values)!r}.")
        if min(self.std) <= 0:
            raise UserError(f"std must be positive, found {self.std!r}.")
        if self.resize_to and self.resize_to < max(self.image_hw):
            raise UserError(
                f"resize_to must be 0 or at least the image side of {max(self.image_hw)} px, "
                f"found {self.resize_to}."
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Input (height, width) in pixels."""
        return as_pair(self.image_size)


def plain_preprocess(config: MixerConfig) -> Preprocess:
    """For a model that does not say how images are prepared for it: values from -1 to 1."""
    return Preprocess(image_size=config.image_size, channels=config.in_channels)


def preprocess_for(recipe: Recipe, class_names: Sequence[str]) -> Preprocess:
    """The preprocessing that a recipe's model and data settings ask for."""
    data, model = recipe.data, recipe.model
    if data.resize == "none" and data.resize_to:
        raise UserError(
            f"data.resize_to is {data.resize_to}, but data.resize is 'none': set data.resize "
            f"to 'shortest' or 'squash', or leave data.resize_to out."
        )
    return Preprocess(
        image_size=model.image_size,
        channels=model.in_channels,
        resize=data.resize,
        resize_to=data.resize_to,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
        class_names=tuple(class_names),
    )
