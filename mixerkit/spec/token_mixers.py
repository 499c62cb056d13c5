"""The token mixers that fit into the block: what each does, whose it is, how far it reaches."""

from dataclasses import dataclass
from typing import Literal

Reach = Literal["all", "near", "none"]


@dataclass(frozen=True)
class TokenMixer:
    """`reach`: which tokens may influence a token within one block: all, those near it on the
    grid, or none but itself. `fixed`: it learns nothing. `mixes_channels`: it is no map along the
    tokens alone. `grid_sized`: its tensors depend on the number of tokens, so that weights for
    another image size have to be made (`model/surgery.py`)."""

    does: str
    source: str
    reach: Reach = "all"
    fixed: bool = False
    mixes_channels: bool = False
    grid_sized: bool = True


TOKEN_MIXERS: dict[str, TokenMixer] = {
    "mlp": TokenMixer(
        "an MLP along the tokens, shared by all channels",
        "Tolstikhin et al. 2021, MLP-Mixer, equation 1",
    ),
    "linear": TokenMixer(
        "one linear map along the tokens, shared by all channels",
        "the article (docs/article.md); Melas-Kyriazi 2021 has it between two norms",
    ),
    "gated": TokenMixer(
        "one half of the channels, mixed linearly along the tokens, multiplies the other half",
        "Liu et al. 2021, Pay Attention to MLPs (gMLP), section 2.1",
        mixes_channels=True,
    ),
    "attention": TokenMixer(
        "multi-head self-attention; learned positions are added to the patch embedding",
        "Dosovitskiy et al. 2021, ViT; token_groups are its heads",
        mixes_channels=True,
    ),
    "pool": TokenMixer(
        "the mean of 3 × 3 neighbours, less the token itself",
        "Yu et al. 2022, MetaFormer (PoolFormer), algorithm 1",
        reach="near",
        fixed=True,
        grid_sized=False,
    ),
    "fourier": TokenMixer(
        "the real part of the Fourier transform along tokens and channels",
        "Lee-Thorp et al. 2022, FNet, section 3.2; scaled by 1/√(SC), the unitary transform",
        fixed=True,
        mixes_channels=True,
        grid_sized=False,
    ),
    "global-filter": TokenMixer(
        "each channel's field over the grid times a learned filter, frequency by frequency",
        "Rao et al. 2021, Global Filter Networks, section 3.2",
    ),
    "depthwise": TokenMixer(
        "a 7 × 7 convolution of each channel, then GELU",
        "Trockman and Kolter 2022, ConvMixer, section 2; without its batch norm",
        reach="near",
        grid_sized=False,
    ),
    "shift": TokenMixer(
        "four quarters of the channels, moved one patch down, up, right and left",
        "Yu et al. 2022, S²-MLP, section 3.2",
        reach="near",
        fixed=True,
        grid_sized=False,
    ),
    "random": TokenMixer(
        "a random mean over all tokens, drawn once and kept",
        "Yu et al. 2024, MetaFormer Baselines for Vision (RandFormer), section 2",
        fixed=True,
    ),
    "circulant": TokenMixer(
        "one kernel as large as the grid, the same at every place, around the edges",
        "a linear map along the tokens that moves with the image (translation equivariance)",
    ),
    "untied": TokenMixer(
        "an MLP along the tokens for each channel",
        "Tolstikhin et al. 2021, appendix A",
    ),
    "grouped": TokenMixer(
        "an MLP along the tokens for each of token_groups groups of channels",
        "Tolstikhin et al. 2021, appendix A",
    ),
    "identity": TokenMixer(
        "nothing: no token hears of another before the mean over them",
        "Yu et al. 2024, MetaFormer Baselines for Vision (IdentityFormer); the floor",
        reach="none",
        fixed=True,
        grid_sized=False,
    ),
}

IN_GROUPS = ("attention", "grouped")
"""Those that divide the channels into `token_groups` parts."""
POOL = 3
"""Side of the neighbourhood that is averaged."""
KERNEL = 7
"""Side of the depthwise convolution."""
