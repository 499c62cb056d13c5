"""One optimiser step: forward, backward, look at the figures, and only then change weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mixerkit.data.draws import DROP_PATH, uniforms
from mixerkit.data.loader import Batch
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.distributed import summing
from mixerkit.training.loss import TargetLoss
from mixerkit.training.optimizer import set_learning_rates
from mixerkit.training.schedule import learning_rate_factor
from mixerkit.training.setup import Steps
from mixerkit.training.sharding import whole
from mixerkit.training.state import FiguresNotFinite, TrainingState

# Keeps the random numbers of step 0 apart from those of the initial weights.
STREAM = 7_919
OTHER_PROCESS = 2_147_483_659
"""Keeps the random numbers of one process apart from another's."""
TINY = 1e-12


class Update:
    """Applies batches to a `TrainingState`. `forward` is its model, compiled or not; `poll` is
    called before each micro-batch and may raise, which leaves everything as it was.

    Of several processes each is given its part of the batch; loss and gradients are of all of it.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps: Steps,
        loss: TargetLoss,
        state: TrainingState,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        self.recipe, self.steps, self.state, self.poll = recipe, steps, state, poll
        self.world = state.world
        self.forward: nn.Module = state.model
        self.parameters = list(state.model.parameters())  # a walk takes as long as their norm
        self.device, self.dtype = self.parameters[0].device, self.parameters[0].dtype
        self.loss = loss.to(self.device)
        self.peaks = [float(o.param_groups[0]["lr"]) for o in state.optimizers]

    def __call__(self, batch: Batch) -> tuple[float, float]:
        """(loss, gradient norm before clipping) of one step on `batch`.

        Raises `FiguresNotFinite`, with weights and optimiser untouched, when either is not finite.
        """
        state = self.state
        buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
        try:
            loss = self._backward(batch)
            if self.recipe.optimizer.sam:
                self._backward_uphill(batch, loss)
            norm = self._clip()
            self._check(loss, norm)
        except BaseException:
            for buffer, before in buffers:  # such as the running means of a peer's BatchNorm
                buffer.copy_(before)
            raise
        else:
            self._apply()
        finally:
            self._forget_gradients()
        state.step += 1
        return loss, norm

    def _check(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            step = self.state.step + 1
            raise FiguresNotFinite(
                f"The loss became {loss} and the gradient norm {norm} at step {step}; this update "
                f"was not made.",
                step,
            )

    def _backward_uphill(self, batch: Batch, loss: float) -> None:
        """Replace the gradients by those at the point that is `optimizer.sam` further up the slope:
        sharpness-aware minimisation (Foret et al. 2021, equations 2 and 3)."""
        parameters = self._with_gradient()
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self._check(loss, float(whole(norm)))
        own = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            reach = float(self.recipe.optimizer.sam / whole(norm).clamp(min=TINY))
            torch._foreach_add_(list[Tensor](parameters), gradients, alpha=reach)
        self._forget_gradients()
        try:
            self._backward(batch)
        finally:
            with torch.no_grad():
                for p, before in zip(parameters, own, strict=True):
                    p.copy_(before)

    def _apply(self) -> None:
        """Change weights and averages by the gradients."""
        state = self.state
        factor = learning_rate_factor(
            state.step, self.steps.total, self.steps.warmup, self.recipe.schedule
        )
        set_learning_rates(state.optimizers, self.peaks, factor)
        for optimizer in state.optimizers:
            optimizer.step()
        if state.average:
            state.average.update(state.model, state.step)

    def micro_batches(self, batch: Batch) -> list[Batch]:
        """The batch cut into as many equal parts as the recipe accumulates; where broken images
        leave too few, the last ones are smaller or, of several processes, empty."""
        size = self._micro_batch_size()
        images, targets = batch.images.to(self.device), batch.targets.to(self.device)
        positions = np.arange(len(images)) if batch.positions is None else batch.positions
        # several processes must go through the model equally often
        least = self.recipe.accumulation * size if self.world.size > 1 else 1
        return [
            Batch(images[part], targets[part], (), positions[part])
            for part in (slice(i, i + size) for i in range(0, max(least, len(images)), size))
        ]

    def _micro_batch_size(self) -> int:
        return self.recipe.batch_size // self.recipe.accumulation // self.world.size

    def loss_of(self, model: nn.Module, part: Batch, whole_weight: Tensor | None = None) -> Tensor:
        """The loss of one micro-batch in the recipe's precision (`TargetLoss.forward`)."""
        bfloat16 = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(part.images.to(self.dtype))
        if logits.shape != part.targets.shape:
            raise UserError(
                f"The model gave outputs {list(logits.shape)} for targets "
                f"{list(part.targets.shape)}: it needs one output for each class."
            )
        loss: Tensor = self.loss(logits, part.targets, whole_weight)
        return loss

    def _backward(self, batch: Batch) -> float:
        """Gradients of the whole batch's mean loss, and that loss; the same for the same step."""
        seed = self.recipe.seed * 1_000_003 + self.state.step + STREAM
        seed_draws(seed + self.world.rank * OTHER_PROCESS, self.device)
        weight = self.world.sum_of(self.loss.weight(batch.targets.to(self.device)))
        total = 0.0
        parts = self.micro_batches(batch)
        for number, part in enumerate(parts, 1):
            self.poll()
            with self._dropping(part), summing(self.forward, now=number == len(parts)) as times:
                loss = self.loss_of(self._model_for(part), part, weight)
                (loss * times).backward()
            total += loss.item()
        return self.world.sum(total)

    @contextmanager
    def _dropping(self, part: Batch) -> Iterator[None]:
        """Inside, stochastic depth leaves out what (seed, step, position of the image) say: the
        same however the batch is divided."""
        model = self.state.model
        if not isinstance(model, MlpMixer) or not model.config.drop_path or part.positions is None:
            yield
            return
        depth, seed, step = model.config.depth, self.recipe.seed, self.state.step
        draws = uniforms(seed, step, part.positions, 2 * depth, DROP_PATH)
        model.drop_by(torch.from_numpy(draws).float().reshape(-1, depth, 2).to(self.device))
        try:
            yield
        finally:
            model.drop_by(None)

    def _model_for(self, part: Batch) -> nn.Module:
        """Batches that unreadable images made smaller are not worth compiling for."""
        whole = len(part.images) == self._micro_batch_size()
        return self.forward if whole or self.world.size > 1 else self.state.model

    def _clip(self) -> float:
        parameters = self._with_gradient()
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.optimizer.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.optimizer.clip, norm)
        return float(whole(norm))

    def _with_gradient(self) -> list[nn.Parameter]:
        return [p for p in self.parameters if p.grad is not None]

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def seed_draws(seed: int, device: torch.device) -> None:
    """Make dropout and stochastic depth of a step functions of `seed`: nothing to save.

    `torch.manual_seed` would also record a stack trace for devices that are not in use, which
    costs as much as a sixth of the demo's training step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
