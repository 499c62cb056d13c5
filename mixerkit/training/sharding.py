"""A model whose parameters, gradients and optimiser state are divided among processes (FSDP2).

PyTorch's part of it takes as long to import as half of PyTorch, and most runs need none: it is
imported by `shard`, and known by its methods elsewhere.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.checkpoints import Put
from mixerkit.model.mixer import MlpMixer
from mixerkit.training.world import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module) -> None:
    """Divide the parameters of `model` among the joined processes, block by block: each keeps its
    rows of every one, and has a block whole only while it goes through it. Gradients are summed."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    units = [*model.blocks, model] if isinstance(model, MlpMixer) else [model]
    for unit in units:
        fully_shard(unit)
    for unit in units:
        assert isinstance(unit, FSDPModule)
        unit.set_force_sum_reduction_for_comms(True)
        unit.set_gradient_divide_factor(1.0)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was called with it."""
    return hasattr(model, "reshard")


def divide_again(model: nn.Module) -> None:
    """Give up what a forward pass without a backward pass left whole."""
    for module in model.modules():
        if is_sharded(module):
            module.reshard()  # type: ignore[operator]


def own(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this process keeps; all of a plain one."""
    return tensor.to_local() if _is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor; for a divided one, all processes ask together."""
    return tensor.full_tensor() if _is_divided(tensor) else tensor


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which all processes have, divided as `other` is."""
    if not _is_divided(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(other.device)
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def _is_divided(tensor: Any) -> TypeGuard["DTensor"]:
    return hasattr(tensor, "full_tensor")


def write_together(world: World, save: Callable[[Put], object], tensors: dict[str, Tensor]) -> None:
    """Have every process put its share of `tensors` into one checkpoint. `save(put)` writes it in
    the first process, and calls `put` with the folder for the tensors, unless one is there already.
    """
    from mixerkit.checkpoint.shards import write_share

    folders: list[Path | None] = []

    def put(folder: Path) -> int:
        folders.append(folder)
        world.first_says(lambda: folder)
        return share(folder)

    def share(folder: Path) -> int:
        files = 0
        with world.agreed():  # the first goes on when all are done
            files = write_share(folder, tensors, world.rank)
        return int(world.sum(files))

    with world.agreed():
        if world.is_first:
            try:
                save(put)
            finally:
                if not folders:
                    world.first_says(lambda: None)
        elif folder := world.first_says(lambda: None):
            share(folder)


def whole_model(model: MlpMixer) -> MlpMixer:
    """A model as it is kept, in float32; one that is divided is put together in every process."""
    if not is_sharded(model) and model.stem.weight.dtype == torch.float32:
        return model
    together = MlpMixer(model.config)
    together.load_state_dict({name: whole(t).cpu() for name, t in model.state_dict().items()})
    return together
