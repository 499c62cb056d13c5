"""Which parameter is updated by what, and the optimisers' state as named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mixerkit.errors import UserError
from mixerkit.spec.recipe import Optimizer
from mixerkit.training.muon import Muon
from mixerkit.training.sharding import placed_like


def make_optimizers(
    model: nn.Module, spec: Optimizer, precision: str = "float32"
) -> list[torch.optim.Optimizer]:
    """The optimisers of `spec`; weight decay touches kernels only (`is_kernel`). Muon makes its
    updates orthogonal in the recipe's `precision`."""
    hidden = [p for name, p in model.named_parameters() if is_hidden_matrix(name, p)]
    if spec.name == "muon" and not hidden:
        raise UserError(
            "Muon is for matrices inside `blocks`, and this model has none: use "
            "optimizer.name=adamw."
        )
    taken = {id(p) for p in hidden} if spec.name == "muon" else set()
    rest = [(is_kernel(name, p), p) for name, p in model.named_parameters() if id(p) not in taken]
    groups = [
        {"params": [p for kernel, p in rest if kernel], "weight_decay": spec.weight_decay},
        {"params": [p for kernel, p in rest if not kernel], "weight_decay": 0.0},
    ]
    if spec.name == "sgd":
        return [DecoupledSgd(groups, lr=spec.lr, momentum=spec.momentum)]
    if spec.name == "adamw":
        return [torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=True)]
    dtype = getattr(torch, precision)
    settings = dict(lr=spec.lr, weight_decay=spec.weight_decay, momentum=spec.momentum)
    muon = Muon(hidden, **settings, dtype=dtype)
    return [muon, torch.optim.AdamW(groups, lr=spec.adamw_lr, betas=spec.betas, fused=True)]


class DecoupledSgd(torch.optim.SGD):
    """SGD with momentum whose weight decay is p ← p·(1 − lr·weight_decay), as in AdamW;
    torch's own is added to the gradient and so runs through the momentum."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient are left alone."""
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            kept = 1 - group["lr"] * group["weight_decay"]
            torch._foreach_mul_([p for p in group["params"] if p.grad is not None], kept)
            group["weight_decay"] = 0.0
        super().step()
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for it: two or more axes, and no table of positions, nor timm's."""
    return parameter.ndim >= 2 and not name.endswith(("positions", "pos_embed", "cls_token"))


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix inside a block, or a stack of them: what Muon is for."""
    return parameter.ndim in (2, 3) and ".blocks." in f".{name}"


def set_learning_rates(
    optimizers: list[torch.optim.Optimizer], peaks: list[float], factor: float
) -> None:
    """Give every optimiser its peak learning rate × `factor`."""
    for optimizer, peak in zip(optimizers, peaks, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor


def optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The optimisers' state as "PARAMETER.KEY" → tensor; nothing before the first step."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def kept_of_each(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """The names of what the optimiser keeps of each parameter once it was updated → whether it is
    a single number rather than one for each of the parameter's."""
    if isinstance(optimizer, Muon):
        return {"momentum": False}
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": False} if optimizer.defaults["momentum"] else {}
    return {"step": True, "exp_avg": False, "exp_avg_sq": False}


def owners_of(optimizers: list[torch.optim.Optimizer]) -> dict[int, torch.optim.Optimizer]:
    """The identity of each parameter → the optimiser that updates it."""
    return {
        id(parameter): optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def restore_optimizers(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave, in place of what is there; a name that fits no
    parameter is an error."""
    parameters = dict(model.named_parameters())
    owners = owners_of(optimizers)
    for optimizer in optimizers:
        optimizer.state.clear()
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(".")
        if name not in parameters:
            raise UserError(f"The checkpoint's optimiser state names no parameter: {full_name}.")
        parameter = parameters[name]
        copy = value.to(parameter.device, copy=True)
        if copy.shape == parameter.shape:
            copy = placed_like(copy, parameter)
        owners[id(parameter)].state[parameter][key] = copy
