"""Everything that a run needs to go on as if it had never stopped, saved and put back.

The order of samples, augmentation and random numbers are functions of (seed, step), so the
state is the step, the weights, the optimisers' tensors and the averaged weights.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.tensors import not_finite
from mixerkit.device import device_here
from mixerkit.errors import RunFailed, UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.ema import Average
from mixerkit.training.optimizer import (
    kept_of_each,
    make_optimizers,
    optimizer_tensors,
    owners_of,
    restore_optimizers,
)
from mixerkit.training.sharding import is_sharded, own, placed_like, shard, write_together
from mixerkit.training.world import World


class FiguresNotFinite(RunFailed):
    """Loss, gradient norm, outputs or weights are NaN or infinite, with the batch of `step`: either
    its update was not made, or it led to this."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step

    def __reduce__(self) -> tuple[type["FiguresNotFinite"], tuple[str, int]]:
        """How another process of the run gets it."""
        return FiguresNotFinite, (str(self), self.step)


PARTS = ("model", "optimizer", "ema")
Parts = dict[str, dict[str, Tensor]]


@dataclass
class TrainingState:
    """The changing part of a run; `step` counts those finished, with an update or left out."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: Average | None
    step: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)
    """(loss, gradient norm) of the steps since the last row of metrics."""
    left_out: list[int] = field(default_factory=list)
    """Steps whose batch is not used, because figures were not finite; some may be yet to come."""
    saved: int | None = None
    """`updates` of the newest checkpoint; None without one."""
    world: World = field(default_factory=World)
    """The processes that have this state together."""

    @property
    def updates(self) -> int:
        """Updates that were made: steps that were not left out. Equal ones, equal weights."""
        return updates_until(self.step, self.left_out)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the model's weights, and the average with them."""
        self._load(weights)
        if self.average:
            self.average.restore(weights)

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        wanted = self.model.state_dict()
        placed = {
            name: placed_like(tensor, wanted[name]) if name in wanted else tensor
            for name, tensor in weights.items()
        }
        self.model.load_state_dict(placed)

    def take_losses(self) -> tuple[float, float]:
        """Mean loss and mean gradient norm since this was last asked."""
        count = len(self.losses)
        loss, norm = (sum(values) / count for values in zip(*self.losses, strict=True))
        self.losses = []
        return loss, norm

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: `model.*`, `optimizer.*` and, with EMA, `ema.*`."""
        parts: Parts = {
            "model": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.model, self.optimizers),
            "ema": self.average.means if self.average else {},
        }
        return {
            f"{part}.{name}": tensor
            for part, named in parts.items()
            for name, tensor in named.items()
        }

    def save(self, run: RunFolder, keep: int, reach: int = 0) -> None:
        """Write a complete checkpoint and prune what the recipe does not keep (`keep`, `reach`: as
        of `Checkpoints.save`); tensors that are not finite raise `FiguresNotFinite` and replace
        nothing. Of several processes all come here, and the first writes."""
        tensors = self.tensors()
        found = self.world.all_say(not_finite({name: own(t) for name, t in tensors.items()}))
        poisoned = list(dict.fromkeys(name for names in found for name in names))
        if poisoned:
            raise FiguresNotFinite(
                f"After step {self.step} {', '.join(poisoned[:3])} are not finite, so they were "
                f"not saved.",
                self.step,
            )
        state = {
            "step": self.step,
            "losses": self.losses,
            "left_out": self.left_out,
            "updates": self.updates,
        }
        save = partial(run.save_checkpoint, self.step, tensors, state, keep, reach)
        if is_sharded(self.model):
            write_together(self.world, save, tensors)
        else:
            self.world.first_says(save)
        self.saved = self.updates

    def restore(
        self,
        run: RunFolder,
        before: float = math.inf,
        found: Callable[[int], None] = lambda _: None,
    ) -> bool:
        """Take the newest complete checkpoint of a step below `before`; False, and nothing is
        changed, when there is none. `found` is called with its step first.

        A checkpoint that does not fit raises `UserError` and changes nothing. Of several processes
        all take the same."""
        newest = self.world.after_first(lambda: run.newest_checkpoint(before))
        self._agree_on(newest[1]["step"] if newest else None)
        if newest is None:
            return False
        tensors, state = newest
        step = int(state["step"])
        folder = run.checkpoints.at(step)
        parts = _parts(tensors)
        losses, left_out = _figures(state, folder)
        updated = updates_until(step, left_out) > 0
        mismatches = list(self._mismatches(parts, updated))
        if mismatches:
            lines = "\n  ".join(mismatches)
            raise UserError(
                f"{folder} does not fit the recipe of its run:\n  {lines}\nWithout that folder a "
                f"resume goes on from the checkpoint before."
            )
        found(step)
        self._take(parts)
        self.step, self.losses, self.left_out = step, losses, left_out
        self.saved = self.updates
        run.cut_metrics(state)
        return True

    def _agree_on(self, step: int | None) -> None:
        """All processes found the same step to go on from, or none."""
        steps = self.world.all_say(step)
        if len(set(steps)) > 1:
            raise RunFailed(
                f"The processes of the run found different checkpoints to go on from (steps "
                f"{steps}, by rank): they must see the same folder."
            )

    def _take(self, parts: Parts) -> None:
        self._load(parts["model"])
        restore_optimizers(self.model, self.optimizers, parts["optimizer"])
        if self.average:
            self.average.restore(parts["ema"])

    def _mismatches(self, parts: Parts, updated: bool) -> Iterator[str]:
        """One line for every tensor that is missing, unexpected, of another shape or type, or not
        finite. `updated`: whether the optimisers have made an update, and so have a state."""
        for part, wanted in (
            ("model", dict(self.model.state_dict())),
            ("ema", self.average.means if self.average else {}),
            ("optimizer", self._optimizer_tensors() if updated else {}),
        ):
            found = parts[part]
            for name in sorted(wanted.keys() | found.keys()):
                if name not in found or name not in wanted:
                    yield f"{part}.{name} is {'unexpected' if name in found else 'missing'}"
                elif (found[name].shape, found[name].dtype) != (
                    wanted[name].shape,
                    wanted[name].dtype,
                ):
                    yield (
                        f"{part}.{name} is {_described(found[name])}, "
                        f"expected {_described(wanted[name])}"
                    )
                elif not_finite({name: found[name]}):
                    yield f"{part}.{name} is not finite"

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """What the optimisers keep after an update: as large as the parameter, or one number."""
        owners = owners_of(self.optimizers)
        return {
            f"{name}.{key}": torch.zeros((), dtype=torch.float32) if single else parameter
            for name, parameter in self.model.named_parameters()
            for key, single in kept_of_each(owners[id(parameter)]).items()
        }


def updates_until(step: int, left_out: list[int]) -> int:
    """Steps up to `step` that are not left out."""
    return step - sum(left <= step for left in left_out)


def how_to_resume(run: RunFolder) -> str:
    """The end of a message about a run that stops: from which step it can go on, and how."""
    steps = run.checkpoints.steps()
    where = f"from step {steps[-1]:,}" if steps else "from the beginning, for nothing was saved yet"
    return f"{where}, with `mixer train --resume {shlex.quote(str(run.path))}`."


def _parts(tensors: dict[str, Tensor]) -> Parts:
    parts: Parts = {part: {} for part in PARTS}
    for full_name, tensor in tensors.items():
        part, _, name = full_name.partition(".")
        if part not in parts:
            raise UserError(f"The checkpoint holds a tensor of no known part: {full_name}.")
        parts[part][name] = tensor
    return parts


def _figures(state: dict[str, Any], folder: Path) -> tuple[list[tuple[float, float]], list[int]]:
    """The losses since the last row and the steps left out, as `TrainingState.save` wrote them."""
    try:
        losses = [(float(loss), float(norm)) for loss, norm in state["losses"]]
        left_out = [int(step) for step in state["left_out"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'state.json'} does not say the losses and the steps left out as a training "
            f"run does. Without that folder a resume goes on from the checkpoint before."
        ) from error
    return losses, left_out


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def fresh_state(recipe: Recipe, model: nn.Module | None = None) -> TrainingState:
    """Step 0: the recipe's model from its seed (or the one given) and new optimisers."""
    torch.manual_seed(recipe.seed)
    model = (MlpMixer(recipe.model) if model is None else model).to(device_here())
    if isinstance(model, MlpMixer):
        model.activation_checkpointing = recipe.activation_checkpointing
    if recipe.precision == "float64":
        model = model.double()
    world = World.here()
    if recipe.strategy == "fsdp" and world.size > 1:
        shard(model)
    changing = not isinstance(model, MlpMixer) and next(model.buffers(), None) is not None
    if world.size > 1 and changing:  # a Mixer's are constants
        raise UserError("Of several processes each would have buffers of its own: train in one.")
    average = Average(model, recipe.ema) if recipe.ema else None
    optimizers = make_optimizers(model, recipe.optimizer, recipe.precision)
    return TrainingState(model, optimizers, average, world=world)
