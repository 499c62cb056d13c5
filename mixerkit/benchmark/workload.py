"""What the speed studies run: one forward pass or one training step on a batch of noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mixerkit.benchmark.measure import peak_memory
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.recipes import recipe
from mixerkit.timer import Call

Say = Callable[[str], None]
Mode = Literal["forward", "training"]
MODES: tuple[Mode, ...] = ("forward", "training")


def models() -> dict[str, MixerConfig]:
    """The models whose speed is reported, by name. GELU is exact, which is timm's only kind."""
    grey = dict(in_channels=1, num_classes=10)
    return {
        "demo": recipe("fashion-demo").model,
        "N/7": variant("N/7", **grey),
        "N/4": variant("N/4", **grey),
        "S/16": variant("S/16", gelu="erf"),
        "B/16": variant("B/16", gelu="erf"),
    }


@dataclass(frozen=True)
class Workload:
    """One line of a speed table. "forward" runs without gradients; "training" is the forward
    pass, cross-entropy and the backward pass (an optimiser costs every implementation alike)."""

    model: str
    batch: int
    mode: Mode

    @property
    def config(self) -> MixerConfig:
        """The model's configuration."""
        return models()[self.model]

    def call(self, model: nn.Module) -> Call:
        """The workload on `model`, ready to be timed."""
        return workload(model, self.config, self.batch, self.mode)

    def peak_memory(self, model: nn.Module) -> int | None:
        """Bytes that one call adds to the process at worst, gradients of the weights included."""
        model.zero_grad(set_to_none=True)
        peak = peak_memory(self.call(model))
        model.zero_grad(set_to_none=True)
        return peak

    def describe(self) -> dict[str, str | int]:
        """The first columns of a results row."""
        return {"model": self.model, "batch": self.batch, "mode": self.mode}


def workload(model: nn.Module, config: MixerConfig, batch: int, mode: Mode) -> Call:
    """A pass of `model`, which takes images and gives classes as `config` says, ready to be timed.
    Equal images and labels every time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, config.in_channels, *config.image_hw, generator=generator)
    labels = torch.randint(config.num_classes, (batch,), generator=generator)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def training() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()

    model.train(mode == "training")
    return training if mode == "training" else forward
