"""An exponential moving average of the weights: what is evaluated and kept when it is on.

A peer's running statistics (BatchNorm) are averaged with its weights, to which they belong.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixerkit.training.sharding import placed_like


class Average:
    """mean ← mean · d + weights · (1 − d), with d = min(decay, (1 + t) / (10 + t)) at step t,
    so that the start of the run is forgotten quickly."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.means = {name: value.detach().clone() for name, value in _averaged(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update `step` (0 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [value.detach() for value in _averaged(model).values()]
        torch._foreach_lerp_(list(self.means.values()), weights, 1 - decay)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the means of a checkpoint."""
        for name, mean in self.means.items():
            mean.copy_(placed_like(tensors[name], mean))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` has the averaged weights; afterwards its own again."""
        own = {name: value.detach().clone() for name, value in _averaged(model).items()}
        self._copy_into(model, self.means)
        try:
            yield
        finally:
            self._copy_into(model, own)

    @staticmethod
    @torch.no_grad()
    def _copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for name, value in _averaged(model).items():
            value.copy_(tensors[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics by name."""
    statistics = {
        name: value
        for name, value in model.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }
    return dict(model.named_parameters()) | statistics
