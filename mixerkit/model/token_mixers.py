"""What exchanges information between patches: every token mixer maps [B, S, C] → [B, S, C].

Letters: B batch, S patches (tokens), C channels, T token-mixing width (the paper's D_S).
A token mixer is built from a `MixerConfig`; the block adds the norm before and the skip around.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixerkit.spec.mixer import MixerConfig


class Gelu(nn.Module):
    """GELU in its "erf" form (exact) or the authors' "tanh" approximation.

    Without gradients it overwrites its input, so call it only on a tensor of one's own: a
    second buffer of that size would cost a small model about as much time as a LayerNorm.
    """

    def __init__(self, flavour: str) -> None:
        super().__init__()
        self.approximate = "tanh" if flavour == "tanh" else "none"

    def forward(self, h: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return F.gelu(h, approximate=self.approximate)
        overwritten: Tensor = torch.ops.aten.gelu_(h, approximate=self.approximate)
        return overwritten


def dropout(rate: float) -> nn.Module:
    """Dropout, or nothing: at rate 0 an `nn.Dropout` still costs as much as a small product."""
    return nn.Dropout(rate) if rate else nn.Identity()


def across_tokens(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """`linear_TS` applied along the token axis: [B, S, C] → [B, T, C].

    W[T, S] @ x[B, S, C] + b[T], one product per image with the weight shared: no transpose
    and no copy of the activations (results/token-mixing.json compares the alternatives).
    """
    weight_TS, device = linear_TS.weight, x_BSC.device.type
    if _autocasts(device) and weight_TS.dtype != torch.float64:
        # autocast would cast the expanded weight, which stores a copy for every image
        weight_TS = weight_TS.to(torch.get_autocast_dtype(device))
    weight_BTS = weight_TS.expand(len(x_BSC), -1, -1)
    return torch.baddbmm(linear_TS.bias.unsqueeze(1), weight_BTS, x_BSC)


def _autocasts(device: str) -> bool:
    """Whether autocast is on for a device; some, such as "meta", do not know it."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


class TokenMlp(nn.Module):
    """The paper's token mixing: W2 · gelu(W1 · x) along the tokens, shared by all channels."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.tile_patches, config.token_width)
        self.fc2 = nn.Linear(config.token_width, config.tile_patches)
        self.act = Gelu(config.gelu)
        self.drop = dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        h_BTC = self.drop(self.act(across_tokens(x_BSC, self.fc1)))
        return self.drop(across_tokens(h_BTC, self.fc2))


class TokenLinear(nn.Module):
    """One linear map along the tokens: the article's first stage."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.tile_patches, config.tile_patches)

    def forward(self, x_BSC: Tensor) -> Tensor:
        return across_tokens(x_BSC, self.fc)


TOKEN_MIXER_CLASSES: dict[str, Callable[[MixerConfig], nn.Module]] = {
    "mlp": TokenMlp,
    "linear": TokenLinear,
}
