"""What a Mixer is, as data: its configuration and the named variants (paper, table 1).

Letters used here and in `model/`: S patches, C channels (width), L blocks (depth),
T token-mixing width (the paper's D_S), D channel-mixing width (D_C), P patch side.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from mixerkit.errors import UserError, unknown
from mixerkit.spec.choices import check_choices, check_whole
from mixerkit.spec.token_mixers import IN_GROUPS

Size = int | tuple[int, int]
TokenMixerName = Literal[
    "mlp", "linear", "gated", "attention", "pool", "fourier", "global-filter", "depthwise",
    "shift", "random", "circulant", "untied", "grouped", "identity",
]  # fmt: skip


def as_pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given as one side or as a pair."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def collapsed(size: Any, name: str, unit: str = "number of pixels") -> Size:
    """One int for a square, else a (height, width) tuple; refuses anything else."""
    pair = size if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise UserError(
            f"{name} must be a positive whole {unit} or a pair (height, width), found {size!r}."
        )
    return pair[0] if pair[0] == pair[1] else (pair[0], pair[1])


@dataclass(frozen=True)
class MixerConfig:
    """Everything that fixes a Mixer's function and tensors.

    `image_size` and `patch_size` are one side or (height, width), in pixels; `num_classes=0`
    leaves the head out and the model returns features `[B, C]`. `gelu` is "tanh" for weights
    trained by the authors, "erf" for those trained in PyTorch. `drop_path_kind` "paper" grows
    the rate linearly from 0 with depth and does not rescale (big_vision); "timm" uses one
    rate for all blocks and divides by the share kept. `pad` accepts images that the patch
    does not divide and pads them with zeros as Flax's SAME does; `norm=False` takes every
    LayerNorm out (the article's teaching form). `tiles` (a number, or down and across) cuts the
    image into parts whose tokens are mixed apart with the same weights (paper, appendix C):
    `token_width` and the token mixing's matrices are those of one tile. `token_mixer`: a name of
    `spec/token_mixers.py`; `token_groups`: the heads of attention, or the groups of channels of
    "grouped".
    """

    image_size: Size = 224
    patch_size: Size = 16
    in_channels: int = 3
    width: int = 768
    depth: int = 12
    token_width: int = 384
    channel_width: int = 3072
    num_classes: int = 1000
    token_mixer: TokenMixerName = "mlp"
    token_groups: int = 1
    channel_mixer: Literal["mlp", "linear"] = "mlp"
    norm: bool = True
    norm_eps: float = 1e-6
    gelu: Literal["tanh", "erf"] = "tanh"
    dropout: float = 0.0
    drop_path: float = 0.0
    drop_path_kind: Literal["paper", "timm"] = "paper"
    head_bias: float = 0.0
    pad: bool = False
    tiles: Size = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", collapsed(self.image_size, "image_size"))
        object.__setattr__(self, "patch_size", collapsed(self.patch_size, "patch_size"))
        object.__setattr__(self, "tiles", collapsed(self.tiles, "tiles", "number of tiles"))
        for name in ("in_channels", "width", "depth", "token_width", "channel_width"):
            check_whole(name, getattr(self, name), least=1)
        check_whole("token_groups", self.token_groups, least=1)
        check_whole("num_classes", self.num_classes, least=0)
        for name in ("dropout", "drop_path"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise UserError(f"{name} must be at least 0 and below 1, found {rate!r}.")
        if self.norm_eps <= 0:
            raise UserError(f"norm_eps must be positive, found {self.norm_eps!r}.")
        check_choices(self)
        self._check_grid()
        self._check_groups()

    def _check_grid(self) -> None:
        for side, image, patch in zip(
            ("height", "width"), self.image_hw, self.patch_hw, strict=True
        ):
            if image < patch:
                raise UserError(
                    f"The image {side} of {image} px is smaller than the patch of {patch} px: "
                    f"use an image_size of at least {patch} or a smaller patch_size."
                )
            if image % patch and not self.pad:
                below, above = image - image % patch, image - image % patch + patch
                raise UserError(
                    f"The image {side} of {image} px is not a multiple of the patch of "
                    f"{patch} px: the nearest valid sizes are {below} and {above} "
                    f"(or pad=True to pad with zeros)."
                )
        for side, cells, tiles in zip(("rows", "columns"), self.grid, self.tiles_hw, strict=True):
            if cells % tiles:
                raise UserError(f"{cells} {side} of patches cannot be cut into {tiles} tiles.")

    def _check_groups(self) -> None:
        if self.token_groups > 1 and self.token_mixer not in IN_GROUPS:
            raise UserError(
                f"token_groups is for the token mixers {' and '.join(IN_GROUPS)}, found "
                f"{self.token_groups} with {self.token_mixer}: leave it at 1."
            )
        if self.width % self.token_groups:
            raise UserError(
                f"width {self.width} must be a multiple of token_groups, found {self.token_groups}."
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Image (height, width) in pixels."""
        return as_pair(self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Patch (height, width) in pixels."""
        return as_pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (down, across)."""
        (height, width), (patch_h, patch_w) = self.image_hw, self.patch_hw
        return -(-height // patch_h), -(-width // patch_w)

    @property
    def num_patches(self) -> int:
        """S, the number of tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def tiles_hw(self) -> tuple[int, int]:
        """Tiles (down, across)."""
        return as_pair(self.tiles)

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Patches (down, across) of one tile: of the whole image when there is one."""
        return self.grid[0] // self.tiles_hw[0], self.grid[1] // self.tiles_hw[1]

    @property
    def tile_patches(self) -> int:
        """The tokens that token mixing joins."""
        return self.tile_grid[0] * self.tile_grid[1]


# Widths and depth by family; the patch comes from the label ("B/16"). S to H: paper, table 1.
# N and T are ours, for images of 28 to 64 px; erf GELU because eager PyTorch computes it
# three times as fast as tanh on a CPU (docs/log.md).
FAMILIES: dict[str, dict[str, Any]] = {
    "N": dict(width=64, depth=4, token_width=32, channel_width=256, image_size=28, gelu="erf"),
    "T": dict(width=128, depth=6, token_width=64, channel_width=512, image_size=64, gelu="erf"),
    "S": dict(width=512, depth=8, token_width=256, channel_width=2048),
    "B": dict(width=768, depth=12, token_width=384, channel_width=3072),
    "L": dict(width=1024, depth=24, token_width=512, channel_width=4096),
    "H": dict(width=1280, depth=32, token_width=640, channel_width=5120),
}

# The article's walk (docs/article.md): single linear maps, no norm, no activation, one block.
ARTICLE: dict[str, Any] = dict(
    width=512,
    depth=1,
    token_width=196,
    channel_width=512,
    patch_size=16,
    token_mixer="linear",
    channel_mixer="linear",
    norm=False,
)

PUBLISHED = ("S/32", "S/16", "S/8", "B/32", "B/16", "L/32", "L/16", "H/14")
SMALL = ("N/4", "N/7", "T/8", "T/4")
VARIANTS = (*PUBLISHED, *SMALL, "article")
LABEL = r"([A-Za-z]+)/([1-9][0-9]{0,4})"


def variant(label: str, **changes: Any) -> MixerConfig:
    """The configuration named by `label`, with fields replaced by `changes`.

    A label is "article" or FAMILY/PATCH, such as "B/16" or "N/4": any patch side that
    divides the image, not only the published ones. Example: `variant("B/16", num_classes=10)`.
    """
    names = [field.name for field in fields(MixerConfig)]
    for name in changes:
        if name not in names:
            raise unknown("model setting", name, names)
    if label == "article":
        return MixerConfig(**(ARTICLE | changes))
    found = re.fullmatch(LABEL, label)
    if not found or found[1].upper() not in FAMILIES:
        raise unknown("model variant", label, VARIANTS)
    family = FAMILIES[found[1].upper()]
    return MixerConfig(**({"patch_size": int(found[2])} | family | changes))


def is_variant(label: str) -> bool:
    """Whether `label` names a variant (the last form of the model source grammar)."""
    found = re.fullmatch(LABEL, label)
    return label == "article" or bool(found and found[1].upper() in FAMILIES)


def variant_of(config: MixerConfig) -> str:
    """The label whose widths, depth and patch `config` has, or "custom"."""
    patch = config.patch_size
    for label in [*(f"{family}/{patch}" for family in FAMILIES), "article"]:
        if is_variant(label) and _same_body(config, label):
            return label
    return "custom"


def _same_body(config: MixerConfig, label: str) -> bool:
    wanted = ARTICLE if label == "article" else FAMILIES[label.partition("/")[0]]
    body = {"token_mixer": "mlp", "channel_mixer": "mlp", "norm": True} | {
        name: value for name, value in wanted.items() if name not in ("image_size", "gelu")
    }
    return all(getattr(config, name) == value for name, value in body.items())
