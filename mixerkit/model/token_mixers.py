"""What exchanges information between patches: every token mixer maps [B, S, C] → [B, S, C].

Letters: B batch, S patches (tokens), C channels, T token-mixing width (the paper's D_S),
G groups of channels, N channels of a group, H W rows and columns of the token grid, F columns of
its spectrum.
A token mixer is built from a `MixerConfig`; the block adds the norm before and the skip around.
`spec/token_mixers.py` says where each comes from, `cost.py` what it costs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.token_mixers import KERNEL, POOL


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


# -- maps along the tokens --------------------------------------------------------------------


def across_tokens(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """`linear_TS` applied along the token axis: [B, S, C] → [B, T, C]."""
    return mixed(x_BSC, linear_TS.weight, linear_TS.bias)


def mixed(x_BSC: Tensor, weight_TS: Tensor, bias_T: Tensor) -> Tensor:
    """W[T, S] @ x[B, S, C] + b[T], one product per image with the weight shared: no transpose
    and no copy of the activations (results/token-mixing.json compares the alternatives)."""
    device = x_BSC.device.type
    if _autocasts(device) and weight_TS.dtype != torch.float64:
        # autocast would cast the expanded weight, which stores a copy for every image
        weight_TS = weight_TS.to(torch.get_autocast_dtype(device))
    weight_BTS = weight_TS.expand(len(x_BSC), -1, -1)
    return torch.baddbmm(bias_T.unsqueeze(1), weight_BTS, x_BSC)


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


class GroupedLinear(nn.Module):
    """A linear map along the tokens for each of G groups: [G, S, N] → [G, T, N]."""

    def __init__(self, groups: int, tokens: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, outputs, tokens))
        self.bias = nn.Parameter(torch.empty(groups * outputs))

    def forward(self, x_GSN: Tensor) -> Tensor:
        bias_GT1 = self.bias.unflatten(0, self.weight.shape[:2]).unsqueeze(2)
        return torch.baddbmm(bias_GT1, self.weight, x_GSN)


class GroupedTokenMlp(nn.Module):
    """A token-mixing MLP for each group of channels; with `groups` = C, one for each channel."""

    def __init__(self, config: MixerConfig, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.fc1 = GroupedLinear(groups, config.tile_patches, config.token_width)
        self.fc2 = GroupedLinear(groups, config.token_width, config.tile_patches)
        self.act = Gelu(config.gelu)
        self.drop = dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        batch, tokens, channels = x_BSC.shape
        x_BSGN = x_BSC.reshape(batch, tokens, self.groups, channels // self.groups)
        x_GSN = x_BSGN.permute(2, 1, 0, 3).flatten(2)  # a group's channels of all images
        h_GTN = self.drop(self.act(self.fc1(x_GSN)))
        y_GSN = self.drop(self.fc2(h_GTN))
        return y_GSN.unflatten(2, (batch, -1)).permute(2, 1, 0, 3).reshape(x_BSC.shape)


class Circulant(nn.Module):
    """One linear map along the tokens that moves with the image: y at (i, j) is the sum of
    kernel[k, l] · x at (i + k, j + l), both around the edges of the grid, plus one bias."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(1, 1, *config.tile_grid))
        self.bias = nn.Parameter(torch.empty(1))

    def weight(self) -> Tensor:
        """The matrix [S, S] that the kernel stands for."""
        kernel_HW = self.kernel[0, 0]
        rows, columns = kernel_HW.shape
        twice = kernel_HW.tile(2, 2).unfold(0, rows, 1).unfold(1, columns, 1)
        # row (i, j) of the matrix is the kernel moved i down and j to the right
        moved = twice[1:, 1:].flip(0, 1)
        return moved.reshape(rows * columns, rows * columns)

    def forward(self, x_BSC: Tensor) -> Tensor:
        return mixed(x_BSC, self.weight(), self.bias.expand(x_BSC.shape[1]))


class RandomMatrix(nn.Module):
    """A mean over all tokens with random weights, which are kept and never learned."""

    weight: Tensor

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        tokens = config.tile_patches
        self.register_buffer("weight", torch.randn(tokens, tokens).softmax(dim=1))

    def forward(self, x_BSC: Tensor) -> Tensor:
        return mixed(x_BSC, self.weight, self.weight.new_zeros(len(self.weight)))


class GatedTokens(nn.Module):
    """gMLP's unit: proj_out(u ⊙ (W · norm(v) + b)) with (u, v) = gelu(proj_in(x)), W along tokens.

    W starts near 0 and b at 1, so that at first nothing is mixed.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.proj_in = nn.Linear(config.width, 2 * config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.gate = nn.Linear(config.tile_patches, config.tile_patches)
        self.proj_out = nn.Linear(config.width, config.width)
        self.act = Gelu(config.gelu)
        self.drop = dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        u_BSC, v_BSC = self.act(self.proj_in(x_BSC)).chunk(2, dim=-1)
        gate_BSC = across_tokens(self.norm(v_BSC), self.gate)
        return self.drop(self.proj_out(u_BSC * gate_BSC))


class Attention(nn.Module):
    """Multi-head self-attention; each of G heads sees C/G channels."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.heads = config.token_groups
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.drop = dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        qkv = self.qkv(x_BSC).unflatten(2, (3, self.heads, -1))
        q_BGSN, k_BGSN, v_BGSN = qkv.permute(2, 0, 3, 1, 4).unbind()
        y_BGSN = F.scaled_dot_product_attention(q_BGSN, k_BGSN, v_BGSN)
        return self.drop(self.proj(y_BGSN.transpose(1, 2).flatten(2)))


# -- maps over the token grid -----------------------------------------------------------------


def on_grid(x_BSC: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens in raster order as a field over their grid, [B, C, H, W]."""
    return x_BSC.mT.unflatten(2, grid)


def in_raster(x_BCHW: Tensor) -> Tensor:
    """The inverse of `on_grid`: [B, S, C]."""
    return x_BCHW.flatten(2).mT


class Pool(nn.Module):
    """The mean over 3 × 3 neighbours, those inside the image, less the token itself."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.grid = config.tile_grid

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BCHW = on_grid(x_BSC, self.grid)
        near_BCHW = F.avg_pool2d(x_BCHW, POOL, 1, POOL // 2, count_include_pad=False)
        return in_raster(near_BCHW) - x_BSC


class Depthwise(nn.Module):
    """A convolution of each channel with a kernel of its own, zeros around the image; then GELU."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.grid = config.tile_grid
        self.weight = nn.Parameter(torch.empty(config.width, 1, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.empty(config.width))
        self.act = Gelu(config.gelu)

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BCHW = on_grid(x_BSC, self.grid)
        channels = len(self.weight)
        y_BCHW = F.conv2d(x_BCHW, self.weight, self.bias, padding=KERNEL // 2, groups=channels)
        return in_raster(self.act(y_BCHW))


class Shift(nn.Module):
    """A quarter of the channels moves one patch down, one up, one right, one left; at the edge that
    it leaves, a quarter keeps its values."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.grid = config.tile_grid

    def forward(self, x_BSC: Tensor) -> Tensor:
        down, up, right, left = on_grid(x_BSC, self.grid).tensor_split(4, dim=1)
        quarters = [
            torch.cat([down[:, :, :1], down[:, :, :-1]], dim=2),
            torch.cat([up[:, :, 1:], up[:, :, -1:]], dim=2),
            torch.cat([right[:, :, :, :1], right[:, :, :, :-1]], dim=3),
            torch.cat([left[:, :, :, 1:], left[:, :, :, -1:]], dim=3),
        ]
        return in_raster(torch.cat(quarters, dim=1))


class Fourier(nn.Module):
    """Real part of the unitary Fourier transform along tokens (in raster order) and channels."""

    def forward(self, x_BSC: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(_for_fft(x_BSC), norm="ortho")
        return spectrum.real.to(x_BSC.dtype)


class GlobalFilter(nn.Module):
    """Each channel's field times a complex filter in the frequency domain: a circular convolution
    with a kernel as large as the grid, one for each channel."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.grid = rows, columns = config.tile_grid
        shape = (rows, columns // 2 + 1, config.width, 2)
        self.filter = nn.Parameter(torch.empty(shape))  # real and imaginary parts

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BHWC = _for_fft(x_BSC).unflatten(1, self.grid)
        spectrum_BHFC = torch.fft.rfft2(x_BHWC, dim=(1, 2), norm="ortho")
        filter_HFC = torch.view_as_complex(self.filter.to(x_BHWC.dtype))
        y_BHWC = torch.fft.irfft2(spectrum_BHFC * filter_HFC, s=self.grid, dim=(1, 2), norm="ortho")
        return y_BHWC.flatten(1, 2).to(x_BSC.dtype)


def _for_fft(x: Tensor) -> Tensor:
    """In a precision that Fourier transforms exist for."""
    return x if x.dtype == torch.float64 else x.float()


TOKEN_MIXER_CLASSES: dict[str, Callable[[MixerConfig], nn.Module]] = {
    "mlp": TokenMlp,
    "linear": TokenLinear,
    "gated": GatedTokens,
    "attention": Attention,
    "pool": Pool,
    "fourier": lambda config: Fourier(),
    "global-filter": GlobalFilter,
    "depthwise": Depthwise,
    "shift": Shift,
    "random": RandomMatrix,
    "circulant": Circulant,
    "untied": lambda config: GroupedTokenMlp(config, config.width),
    "grouped": lambda config: GroupedTokenMlp(config, config.token_groups),
    "identity": lambda config: nn.Identity(),
}
