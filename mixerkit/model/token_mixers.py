"""What exchanges information between patches: every token mixer maps [B, S, C] → [B, S, C].

Letters: B batch, S patches (tokens), C channels, T token-mixing width (the paper's D_S).
A token mixer is built from a `MixerConfig`; the block adds the norm before and the skip around.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixerkit.spec.mixer import MixerConfig


def gelu(flavour: str) -> nn.GELU:
    """GELU as "tanh" (the authors' approximation) or "erf" (exact; PyTorch's default)."""
    return nn.GELU(approximate="tanh" if flavour == "tanh" else "none")


def across_tokens(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """`linear_TS` applied along the token axis: [B, S, C] → [B, T, C].

    W[T, S] @ x[B, S, C] + b[T], one product per image with the weight shared: no transpose
    and no copy of the activations (measured against the alternatives in docs/log.md).
    """
    batch = x_BSC.shape[0]
    weight_BTS = linear_TS.weight.expand(batch, -1, -1)
    return torch.baddbmm(linear_TS.bias[:, None], weight_BTS, x_BSC)


class TokenMlp(nn.Module):
    """The paper's token mixing: W2 · gelu(W1 · x) along the tokens, shared by all channels."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.num_patches, config.token_width)
        self.fc2 = nn.Linear(config.token_width, config.num_patches)
        self.act = gelu(config.gelu)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        h_BTC = self.drop(self.act(across_tokens(x_BSC, self.fc1)))
        return self.drop(across_tokens(h_BTC, self.fc2))


class TokenLinear(nn.Module):
    """One linear map along the tokens: the article's first stage."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.num_patches, config.num_patches)

    def forward(self, x_BSC: Tensor) -> Tensor:
        return across_tokens(x_BSC, self.fc)


TOKEN_MIXER_CLASSES: dict[str, Callable[[MixerConfig], nn.Module]] = {
    "mlp": TokenMlp,
    "linear": TokenLinear,
}
