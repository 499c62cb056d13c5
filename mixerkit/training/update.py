"""One optimiser step: forward, backward, look at the figures, and only then change weights."""

import math

import torch
from torch import Tensor, nn

from mixerkit.data.loader import Batch
from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import Recipe
from mixerkit.training.loss import TargetLoss
from mixerkit.training.optimizer import set_learning_rates
from mixerkit.training.schedule import learning_rate_factor
from mixerkit.training.setup import Steps
from mixerkit.training.state import TrainingState


class Update:
    """Applies batches to a `TrainingState`. `forward` is its model, compiled or not."""

    def __init__(
        self, recipe: Recipe, steps: Steps, loss: TargetLoss, state: TrainingState
    ) -> None:
        self.recipe, self.steps, self.loss, self.state = recipe, steps, loss, state
        self.forward: nn.Module = state.model
        self.device = next(state.model.parameters()).device
        self.peaks = [float(o.param_groups[0]["lr"]) for o in state.optimizers]

    def __call__(self, batch: Batch) -> tuple[float, float]:
        """(loss, gradient norm before clipping) of one step on `batch`.

        Raises `RunFailed`, with weights and optimiser untouched, when either is not finite.
        """
        state, recipe = self.state, self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + state.step)  # dropout, stochastic depth
        loss = self._backward(batch)
        norm = self._clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunFailed(
                f"The loss became {loss} and the gradient norm {norm} at step "
                f"{state.step + 1}; this update was not made and the last checkpoint is kept. "
                f"Try a lower optimizer.lr, a longer schedule.warmup, or optimizer.clip=1."
            )
        factor = learning_rate_factor(
            state.step, self.steps.total, self.steps.warmup, recipe.schedule
        )
        set_learning_rates(state.optimizers, self.peaks, factor)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if state.average:
            state.average.update(state.model, state.step)
        state.step += 1
        return loss, norm

    def _backward(self, batch: Batch) -> float:
        """Gradients of the mean loss over the micro-batches, and that loss."""
        parts, size = self.recipe.accumulation, self.recipe.batch_size // self.recipe.accumulation
        total = 0.0
        for images, targets in zip(
            batch.images.split(size), batch.targets.split(size), strict=True
        ):
            loss = self.loss_of(self.forward, images, targets) / parts
            loss.backward()
            total += loss.item()
        return total

    def loss_of(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of one micro-batch in the recipe's precision."""
        images, targets = images.to(self.device), targets.to(self.device)
        bfloat16 = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        loss: Tensor = self.loss(logits, targets)
        return loss

    def _clip(self) -> float:
        parameters = [p for p in self.state.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.optimizer.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.optimizer.clip, norm)
        return float(norm)
