"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024).

The same update as `torch.optim.Muon`, computed for all matrices of one shape at once and in
a precision of one's choice. torch's takes them one by one in bfloat16, which a processor without
bfloat16 instructions emulates: a training step of a small Mixer then spends more time in the
optimiser than in the model (docs/log.md). One that has them is twice as fast with them.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mixerkit.training.sharding import placed_like, whole

# Newton–Schulz polynomial a·X + b·(XXᵀ)X + c·(XXᵀ)²X, tuned for a steep start (Jordan 2024).
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices, and stacks of them
    [G, T, S], whose matrices are updated each on its own.

    `lr` is scaled by sqrt(max(1, rows / columns)), torch's "original" adjustment. `dtype` is what
    updates are made orthogonal in; momentum and weights keep their own.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        if any(p.ndim not in (2, 3) for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes matrices only; give other parameters to AdamW.")
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients; parameters without a gradient are left alone."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for matrices in by_shape.values():
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        for p in matrices:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in matrices]
        gradients = [p.grad for p in matrices if p.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        # of a divided matrix every process needs all rows for this, and keeps its own
        stacked = torch.stack([whole(matrix) for matrix in ahead])
        each_NRC = stacked.flatten(0, -3).to(self.dtype)
        updates = orthogonalise(each_NRC).to(momenta[0].dtype).view_as(stacked)
        placed = [placed_like(u, p) for u, p in zip(updates.unbind(), matrices, strict=True)]
        rows, columns = matrices[0].shape[-2:]
        scale = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, placed, alpha=-scale)


def orthogonalise(g_NRC: Tensor) -> Tensor:
    """The nearest (roughly) orthogonal matrix to each of N matrices [N, R, C], by five
    Newton–Schulz steps: singular values end between about 0.7 and 1.2."""
    tall = g_NRC.shape[1] > g_NRC.shape[2]
    x = g_NRC.mT if tall else g_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x
