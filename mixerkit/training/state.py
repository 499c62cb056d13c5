"""Everything that a run needs to go on as if it had never stopped, saved and put back.

The order of samples, augmentation and random numbers are functions of (seed, step), so the
state is the step, the weights, the optimisers' tensors and the averaged weights.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.tensors import not_finite
from mixerkit.errors import RunFailed, UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.ema import Average
from mixerkit.training.optimizer import make_optimizers, optimizer_tensors, restore_optimizers


@dataclass
class TrainingState:
    """The changing part of a run; `step` counts finished updates."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: Average | None
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[float, float]] = field(default_factory=list)
    """(loss, gradient norm) of the steps since the last row of metrics."""

    def take_losses(self) -> tuple[float, float]:
        """Mean loss and mean gradient norm since this was last asked."""
        count = len(self.losses)
        loss, norm = (sum(values) / count for values in zip(*self.losses, strict=True))
        self.losses = []
        return loss, norm

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: `model.*`, `optimizer.*` and, with EMA, `ema.*`."""
        parts = {
            "model": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.model, self.optimizers),
            "ema": self.average.means if self.average else {},
        }
        return {
            f"{part}.{name}": tensor
            for part, named in parts.items()
            for name, tensor in named.items()
        }

    def save(self, run: RunFolder, keep: int) -> None:
        """Write a complete checkpoint and prune all but the newest `keep`; weights that are
        not finite raise `RunFailed` and replace nothing."""
        poisoned = not_finite(dict(self.model.state_dict()))
        if poisoned:
            raise RunFailed(
                f"After step {self.step} the weights {', '.join(poisoned[:3])} are not finite; "
                f"nothing was saved and the last checkpoint is kept. Try a lower optimizer.lr."
            )
        state = {"step": self.step, "seconds": self.seconds, "losses": self.losses}
        run.save_checkpoint(self.step, self.tensors(), state, keep)

    def restore(self, run: RunFolder) -> bool:
        """Take the newest complete checkpoint; False when the run has none."""
        found = run.newest_checkpoint()
        if found is None:
            run.cut_metrics(None)
            return False
        tensors, state = found
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "ema": {}}
        for full_name, tensor in tensors.items():
            part, _, name = full_name.partition(".")
            if part not in parts:
                raise UserError(f"The checkpoint holds a tensor of no known part: {full_name}.")
            parts[part][name] = tensor
        self.model.load_state_dict(parts["model"])
        restore_optimizers(self.model, self.optimizers, parts["optimizer"])
        if self.average:
            self.average.restore(parts["ema"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.losses = [(loss, norm) for loss, norm in state["losses"]]
        run.cut_metrics(state)
        return True


def device_here() -> torch.device:
    """Where training runs on this machine."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fresh_state(recipe: Recipe, model: nn.Module | None = None) -> TrainingState:
    """Step 0: the recipe's model from its seed (or the one given) and new optimisers."""
    torch.manual_seed(recipe.seed)
    model = (MlpMixer(recipe.model) if model is None else model).to(device_here())
    if isinstance(model, MlpMixer):
        model.activation_checkpointing = recipe.activation_checkpointing
    average = Average(model, recipe.ema) if recipe.ema else None
    return TrainingState(model, make_optimizers(model, recipe.optimizer), average)
