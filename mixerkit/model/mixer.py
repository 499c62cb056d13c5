"""The MLP-Mixer, figure 1 of the paper in one file.

Letters: B batch, H W image height and width, K classes, P patch side, S patches (tokens),
C channels, T token-mixing width (D_S), D channel-mixing width (D_C), L blocks.
Compilation, precision and distribution are applied from outside.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixerkit.errors import UserError
from mixerkit.model.token_mixers import TOKEN_MIXER_CLASSES, Gelu, dropout
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess


class PatchEmbedding(nn.Module):
    """Cut the image into patches and map each one to C channels: [B, I, H, W] → [B, S, C].

    A convolution with stride P, written as the matrix product that it is; `weight` keeps the
    convolution's shape [C, I, P, P]. Tokens are in raster order. An image of K tiles becomes K
    samples of S/K tokens each, [B·K, S/K, C]: the blocks then mix every tile on its own.

    For attention, which would not know where a token is, learned `positions` [S/K, C] are added.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.image_hw, self.patch_hw = config.image_hw, config.patch_hw
        self.tile_grid, self.tiles, self.pad = config.tile_grid, config.tiles_hw, config.pad
        self.weight = nn.Parameter(torch.empty(config.width, config.in_channels, *self.patch_hw))
        self.bias = nn.Parameter(torch.empty(config.width))
        self.positions: nn.Parameter | None = None
        if config.token_mixer == "attention":
            self.positions = nn.Parameter(torch.empty(config.tile_patches, config.width))

    def forward(self, x_BIHW: Tensor) -> Tensor:
        channels = self.weight.shape[1]
        if x_BIHW.ndim != 4 or x_BIHW.shape[1:] != (channels, *self.image_hw):
            height, width = self.image_hw
            raise UserError(
                f"Expected images [batch, {channels}, {height}, {width}], found "
                f"{list(x_BIHW.shape)}: resize them, or build the model with this image_size."
            )
        if self.pad:
            x_BIHW = self._pad_same(x_BIHW)
        (rows, columns), (patch_h, patch_w) = self.tile_grid, self.patch_hw
        (down, across), tokens = self.tiles, rows * columns
        batch, pixels = len(x_BIHW), channels * patch_h * patch_w
        x = x_BIHW.reshape(batch, channels, down, rows, patch_h, across, columns, patch_w)
        x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)
        x_BSQ = x.reshape(batch * down * across, tokens, pixels)
        x_BSC = F.linear(x_BSQ, self.weight.flatten(1), self.bias)
        return x_BSC if self.positions is None else x_BSC + self.positions

    def in_raster(self, x_BSC: Tensor) -> Tensor:
        """Tokens of an image's tiles, [B·K, S/K, C], in raster order over the image: [B, S, C]."""
        (rows, columns), (down, across) = self.tile_grid, self.tiles
        if down * across == 1:
            return x_BSC
        batch, channels = len(x_BSC) // (down * across), x_BSC.shape[-1]
        x = x_BSC.reshape(batch, down, across, rows, columns, channels)
        return x.transpose(2, 3).reshape(batch, down * rows * across * columns, channels)

    def _pad_same(self, x_BIHW: Tensor) -> Tensor:
        """Zeros as Flax's SAME puts them: half before, the odd one after."""
        edges: list[int] = []
        for image, patch in zip(self.image_hw, self.patch_hw, strict=True):
            missing = -image % patch
            edges = [missing // 2, missing - missing // 2, *edges]
        return F.pad(x_BIHW, edges)


class ChannelMlp(nn.Module):
    """The paper's channel mixing, the same for every token: [B, S, C] → [B, S, C]."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.channel_width)
        self.fc2 = nn.Linear(config.channel_width, config.width)
        self.act = Gelu(config.gelu)
        self.drop = dropout(config.dropout)

    def forward(self, x_BSC: Tensor) -> Tensor:
        h_BSD = self.drop(self.act(self.fc1(x_BSC)))
        return self.drop(self.fc2(h_BSD))


class ChannelLinear(nn.Module):
    """One linear map over the channels: the article's second stage."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.width, config.width)

    def forward(self, x_BSC: Tensor) -> Tensor:
        return self.fc(x_BSC)


CHANNEL_MIXER_CLASSES = {"mlp": ChannelMlp, "linear": ChannelLinear}


class DropPath(nn.Module):
    """Stochastic depth: leave a branch out of whole samples with probability `rate`.

    `rescale` divides what is kept by 1 − rate (timm does, the authors do not). The `tiles` of an
    image are left out together. `draws` [B] in [0, 1) decide, where they are given
    (`MlpMixer.drop_by`), else PyTorch's random numbers.
    """

    def __init__(self, rate: float, rescale: bool, tiles: int = 1) -> None:
        super().__init__()
        self.rate, self.rescale, self.tiles = rate, rescale, tiles
        self.draws: Tensor | None = None

    def forward(self, branch_BSC: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch_BSC
        images = len(branch_BSC) // self.tiles
        draws_B = self.draws
        if draws_B is None:
            draws_B = torch.rand(images, device=branch_BSC.device)
        keep_B11 = (draws_B >= self.rate).repeat_interleave(self.tiles)[:, None, None]
        kept = branch_BSC * keep_B11.to(branch_BSC.dtype)
        return kept / (1 - self.rate) if self.rescale else kept


class MixerBlock(nn.Module):
    """Mix across tokens, then across channels, each normalised before and added to the input."""

    def __init__(self, config: MixerConfig, index: int) -> None:
        super().__init__()
        self.token_norm = layer_norm(config)
        self.token_mixing = TOKEN_MIXER_CLASSES[config.token_mixer](config)
        self.channel_norm = layer_norm(config)
        self.channel_mixing = CHANNEL_MIXER_CLASSES[config.channel_mixer](config)
        tiles = config.tiles_hw[0] * config.tiles_hw[1]
        rate, rescale = drop_path_rate(config, index), config.drop_path_kind == "timm"
        self.token_drop = DropPath(rate, rescale, tiles)
        self.channel_drop = DropPath(rate, rescale, tiles)

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_BSC = x_BSC + self.token_drop(self.token_mixing(self.token_norm(x_BSC)))
        return x_BSC + self.channel_drop(self.channel_mixing(self.channel_norm(x_BSC)))


class MlpMixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021): images [B, I, H, W] → logits [B, K].

    With `num_classes=0` the result is the pooled features [B, C]. `activation_checkpointing`
    recomputes each block in the backward pass instead of keeping its activations.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.preprocess: Preprocess | None = None  # this and the next three are set by `load`
        self.about: dict[str, Any] = {}
        self.source = "fresh weights"
        self.notes: tuple[str, ...] = ()
        self.stem = PatchEmbedding(config)
        self.blocks = nn.ModuleList(MixerBlock(config, i) for i in range(config.depth))
        self.norm = layer_norm(config)
        self.head = (
            nn.Linear(config.width, config.num_classes) if config.num_classes else nn.Identity()
        )
        initialize(self)

    def tokens(self, x_BIHW: Tensor) -> Tensor:
        """The tokens after the last norm, [B, S, C], in raster order."""
        return self.stem.in_raster(self._tokens(x_BIHW))

    def _tokens(self, x_BIHW: Tensor) -> Tensor:
        """As the blocks leave them: tile by tile, [B·K, S/K, C]."""
        x_BSC = self.stem(x_BIHW)
        for block in self.blocks:
            x_BSC = self._through(block, x_BSC)
        return self.norm(x_BSC)

    def _through(self, block: nn.Module, x_BSC: Tensor) -> Tensor:
        if self.activation_checkpointing and self.training:
            return checkpoint(block, x_BSC, use_reentrant=False)
        return block(x_BSC)

    def features(self, x_BIHW: Tensor) -> Tensor:
        """What the head sees: the mean over the tokens, [B, C]."""
        x_BSC = self._tokens(x_BIHW)
        return x_BSC.reshape(len(x_BIHW), self.config.num_patches, self.config.width).mean(dim=1)

    def forward(self, x_BIHW: Tensor) -> Tensor:
        return self.head(self.features(x_BIHW))

    def drop_by(self, draws_BL2: Tensor | None) -> None:
        """Decide by these numbers in [0, 1) which branches are left out in training, instead of by
        PyTorch's: for each image, block and branch one. None: by PyTorch's again."""
        for i, block in enumerate(self.blocks):
            assert isinstance(block, MixerBlock)
            drops = (block.token_drop, block.channel_drop)
            for branch, drop in enumerate(drops):
                drop.draws = None if draws_BL2 is None else draws_BL2[:, i, branch]

    @torch.no_grad()
    def intermediates(self, x_BIHW: Tensor) -> dict[str, Tensor]:
        """Every named stage of one forward pass: `stem`, `blocks.0.token_mixing` (the stream
        after that branch was added), `blocks.0.channel_mixing`, …, `norm` [B, S, C],
        `features` [B, C] and `logits` [B, K]. Stochastic depth is off."""
        stages: dict[str, Tensor] = OrderedDict()
        in_raster = self.stem.in_raster
        x_BSC = self.stem(x_BIHW)
        stages["stem"] = in_raster(x_BSC)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, MixerBlock)
            x_BSC = x_BSC + block.token_mixing(block.token_norm(x_BSC))
            stages[f"blocks.{i}.token_mixing"] = in_raster(x_BSC)
            x_BSC = x_BSC + block.channel_mixing(block.channel_norm(x_BSC))
            stages[f"blocks.{i}.channel_mixing"] = in_raster(x_BSC)
        stages["norm"] = in_raster(self.norm(x_BSC))
        stages["features"] = stages["norm"].mean(dim=1)
        if self.config.num_classes:
            stages["logits"] = self.head(stages["features"])
        return stages


def layer_norm(config: MixerConfig) -> nn.Module:
    """LayerNorm over the channels, or nothing for the article's form."""
    return nn.LayerNorm(config.width, eps=config.norm_eps) if config.norm else nn.Identity()


def drop_path_rate(config: MixerConfig, index: int) -> float:
    """Rate of block `index`: "paper" grows it linearly to `drop_path` at the last block."""
    if config.drop_path_kind == "timm":
        return config.drop_path
    return config.drop_path * index / max(1, config.depth - 1)


SMALL_STARTS = {"positions": 0.02, "filter": 0.02, "gate.weight": 1e-3}
"""End of a kernel's name → its standard deviation, where that is not by its fan-in."""


def _fan_in(kernel: Tensor) -> int:
    """Numbers that each output is a sum over; [G, T, S] holds a matrix for each of G groups."""
    return kernel.shape[-1] if kernel.ndim == 3 else kernel[0].numel()


@torch.no_grad()
def initialize(model: MlpMixer) -> None:
    """All initialisation (big_vision's): kernels LeCun normal (truncated at two deviations),
    biases 0, LayerNorm 1 and 0, head kernel 0 and head bias `head_bias`; what other token mixers
    have of their own as their authors start it (`SMALL_STARTS`; gMLP's gate is open)."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            is_one = name.endswith(("norm.weight", "gate.bias"))
            nn.init.constant_(parameter, 1.0 if is_one else 0.0)
        elif name.startswith("head."):
            nn.init.zeros_(parameter)
        else:
            small = next((v for end, v in SMALL_STARTS.items() if name.endswith(end)), None)
            deviation = small or math.sqrt(1 / _fan_in(parameter))
            deviation /= 0.87962566103423978  # of the cut-off normal
            nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation)
    if isinstance(model.head, nn.Linear):
        nn.init.constant_(model.head.bias, model.config.head_bias)
