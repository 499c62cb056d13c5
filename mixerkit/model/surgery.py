"""Another resolution, patch size, number of classes or channels for weights that exist.

Every function takes a configuration and its tensors (a state dict) and gives new ones; nothing
is changed in place, and tensors that stay the same are shared. Letters: S tokens of one tile,
T token-mixing width, K² tiles; U resizes a field over the token grid from S to S' values.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixerkit.errors import UserError
from mixerkit.spec.mixer import MixerConfig, Size, as_pair, collapsed
from mixerkit.spec.token_mixers import TOKEN_MIXERS

Tensors = dict[str, Tensor]
Model = tuple[MixerConfig, Tensors]
Grid = tuple[int, int]
Method = Literal["bilinear", "bicubic", "area", "pinv"]
METHODS: tuple[Method, ...] = ("bilinear", "bicubic", "area", "pinv")
DEFAULT_METHOD: Method = "area"
"""By `mixer bench surgery` on real images: among the best at once and after fine-tuning."""

# Which axes of a block's token-mixing tensors run over tokens and over hidden units.
TOKEN_AXES: dict[str, tuple[str, ...]] = {
    "token_mixing.fc1.weight": ("hidden", "tokens in"),
    "token_mixing.fc1.bias": ("hidden",),
    "token_mixing.fc2.weight": ("tokens out", "hidden"),
    "token_mixing.fc2.bias": ("tokens out",),
    "token_mixing.fc.weight": ("tokens out", "tokens in"),
    "token_mixing.fc.bias": ("tokens out",),
    "token_mixing.gate.weight": ("tokens out", "tokens in"),
    "token_mixing.gate.bias": ("tokens out",),
    "stem.positions": ("tokens out", "channels"),
}
RESAMPLED = ("mlp", "linear", "gated", "attention")
"""Token mixers whose tensors for another grid are made by this table; others have none that depend
on it, or cannot be moved."""
SEPARATED = ("mlp", "linear")
"""Those that do on separate tiles what a dense model can do."""


# -- K times the size (paper, appendix C) -----------------------------------------------------


def enlarge(config: MixerConfig, tensors: Tensors, factor: Size) -> Model:
    """An image `factor` times larger, cut into factor² tiles that share the token mixing.

    Each tile of the native size is mixed on its own with the same matrices; the mean runs over
    all tokens. As only the mean joins tokens of different tiles, and the head is linear,

        logits(image) = mean over the tiles of logits(tile).

    No parameter is added and the tensors are those given; the cost is factor² times the native.
    """
    down, across = as_pair(factor)
    (height, width), (tiles_down, tiles_across) = config.image_hw, config.tiles_hw
    larger = replace(
        config,
        image_size=(height * down, width * across),
        tiles=(tiles_down * down, tiles_across * across),
    )
    return larger, dict(tensors)


def separate(config: MixerConfig, tensors: Tensors) -> Model:
    """Shared tiles as one dense model, which computes the same and can be trained further.

    With K² tiles of S tokens the matrices become block-diagonal, K²T × K²S and K²S × K²T, with
    one block for each tile. Tokens are in raster order over the whole image, so the columns of
    tile t stand at the raster positions r(t, s) of its tokens s:

        W1'[(t, h), r(t, s)] = W1[h, s]    b1'[(t, h)] = b1[h]
        W2'[r(t, s), (t, h)] = W2[s, h]    b2'[r(t, s)] = b2[s]
    """
    tiles = config.tiles_hw[0] * config.tiles_hw[1]
    if tiles == 1:
        return config, dict(tensors)
    if config.token_mixer not in SEPARATED:
        raise UserError(
            f"Tiles mixed apart become one dense model for the token mixers "
            f"{' and '.join(SEPARATED)}, found {config.token_mixer}: keep the tiles "
            f"(enlargement=shared)."
        )
    raster = raster_of_tiles(config)
    width = config.token_width * (tiles if config.token_mixer == "mlp" else 1)
    spread = {"hidden": None, "tokens in": raster, "tokens out": raster}
    changed = {
        name: _block_diagonal(tensor, tiles, [spread[axis] for axis in axes])
        for name, tensor, axes in _token_tensors(tensors)
    }
    return replace(config, tiles=1, token_width=width), tensors | changed


def raster_of_tiles(config: MixerConfig) -> Tensor:
    """[K², S]: where token s of tile t stands among all tokens in raster order."""
    (down, across), (rows, columns) = config.grid, config.tile_grid
    order = torch.arange(down * across).reshape(down // rows, rows, across // columns, columns)
    return order.transpose(1, 2).reshape(-1, rows * columns)


def _block_diagonal(tensor: Tensor, tiles: int, places: list[Tensor | None]) -> Tensor:
    """`tensor` once for each tile; an axis with `places` [K², n] puts tile t's n entries there."""
    sides = tensor.shape
    result = tensor.new_zeros([tiles * side for side in sides])
    for tile in range(tiles):
        index = [
            torch.arange(tile * side, (tile + 1) * side) if place is None else place[tile]
            for side, place in zip(sides, places, strict=True)
        ]
        result[torch.meshgrid(*index, indexing="ij")] = tensor
    return result


def _token_tensors(tensors: Tensors) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    """(name, tensor, axes) of every tensor with an axis over tokens or token-mixing units."""
    found = []
    for name, tensor in tensors.items():
        axes = TOKEN_AXES.get(name.split(".", 2)[2] if name.startswith("blocks.") else name)
        if axes:
            found.append((name, tensor, axes))
    return found


# -- any other size ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Resizing:
    """Matrices between a field on the old token grid and one on the new."""

    into: Tensor
    """[S, S']: right factor for weights that read tokens."""
    out_of: Tensor
    """[S', S]: left factor for weights that write tokens."""


def resample(
    config: MixerConfig, tensors: Tensors, image_size: Size, method: Method = DEFAULT_METHOD
) -> Model:
    """Another image size with the patch size kept: token mixing over a finer or coarser grid.

    The rows of W1 and the columns of W2 are functions over the token grid. Writing is
    interpolation, W2' = U·W2 and b2' = U·b2. Reading is a sum that stands for an integral over the
    image: the weight of each old token is spread over new ones, W1' = W1·R with

        bilinear, bicubic:  R ~ Uᵀ, each row of W1 drawn on the new grid
        area:               R averages the new tokens in each old cell
        pinv:               R ~ U⁺, so that W1'·U·x = W1·x for whatever field was enlarged by U

    and each row of R scaled to sum to one. Thus the response to a constant field is exactly that
    of the native size, to a smooth one nearly, and so is the variance of the activations. The
    hidden width stays. Shared tiles are resampled tile by tile.
    """
    _check_one_of("method", method, METHODS)
    pair = as_pair(collapsed(image_size, "image_size"))
    resized = replace(config, image_size=pair)
    if resized.grid == config.grid:
        return resized, dict(tensors)
    mixer = config.token_mixer
    if TOKEN_MIXERS[mixer].grid_sized and mixer not in RESAMPLED:
        raise UserError(
            f"Weights of the token mixer {mixer} cannot be moved to another number of patches: "
            f"use an image_size that is a multiple of the model's own, as tiles that share them "
            f"(enlargement=shared)."
        )
    old, new = config.tile_grid, resized.tile_grid
    factors = _resizing(old, new, method)
    changed = {}
    for name, tensor, axes in _token_tensors(tensors):
        exact = tensor.double().cpu()
        if axes[-1] == "tokens in":
            exact = exact @ factors.into
        if axes[0] == "tokens out":
            exact = factors.out_of @ exact
        changed[name] = exact.to(tensor)
    return resized, tensors | changed


def _resizing(old: Grid, new: Grid, method: Method) -> _Resizing:
    if method == "area":
        return _Resizing(into=averaging_matrix(new, old), out_of=averaging_matrix(old, new))
    U = resize_matrix(old, new, "bicubic" if method == "bicubic" else "bilinear")
    into = torch.linalg.pinv(U) if method == "pinv" else U.T
    return _Resizing(into=into / into.sum(1, keepdim=True), out_of=U)


def resize_matrix(old: Grid, new: Grid, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """U [S', S] in float64: a field over the grid `old`, as an image resized to `new`.

    Made by resizing each unit field; smaller grids are antialiased."""
    units = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(-1, 1, *old)
    smaller = new[0] < old[0] or new[1] < old[1]
    fields = F.interpolate(units, new, mode=mode, antialias=smaller)
    return fields.reshape(len(units), -1).T


def averaging_matrix(old: Grid, new: Grid) -> Tensor:
    """[S', S] in float64: each new cell is the average of what it covers of the old cells."""

    def overlaps(old_side: int, new_side: int) -> Tensor:
        old_edges = torch.arange(old_side + 1, dtype=torch.float64) / old_side
        new_edges = torch.arange(new_side + 1, dtype=torch.float64) / new_side
        upper = torch.minimum(new_edges[1:, None], old_edges[None, 1:])
        lower = torch.maximum(new_edges[:-1, None], old_edges[None, :-1])
        return (upper - lower).clamp(min=0) * new_side

    return torch.kron(overlaps(old[0], new[0]), overlaps(old[1], new[1]))


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}, found '{value}'.")


# -- patches, channels, classes ---------------------------------------------------------------


def resize_patches(
    config: MixerConfig, tensors: Tensors, patch_size: Size, *, keep: Literal["grid", "image"]
) -> Model:
    """Another patch size by pseudo-inverse resizing of the stem (FlexiViT, Beyer et al. 2023).

    With B the matrix that resizes a patch from P² to P'² pixels, W' = W·B⁺, so that an enlarged
    patch gives what the patch gave: W'·B·x = W·x. `keep="grid"` scales the image with the patch
    and leaves the tokens as they are; `keep="image"` leaves the image size, and the number of
    tokens changes (call `resample` for that part: `adapt` does).
    """
    pair = as_pair(collapsed(patch_size, "patch_size"))
    weight = tensors["stem.weight"]
    B = resize_matrix(config.patch_hw, pair, "bilinear")
    flat = weight.double().cpu().flatten(2) @ torch.linalg.pinv(B)
    stem = flat.reshape(*weight.shape[:2], *pair).to(weight)
    down, across = config.grid
    image = (down * pair[0], across * pair[1]) if keep == "grid" else config.image_hw
    return replace(config, patch_size=pair, image_size=image), tensors | {"stem.weight": stem}


def change_channels(config: MixerConfig, tensors: Tensors, in_channels: int) -> Model:
    """Another number of image channels.

    One channel takes the sum of the kernels, so that a grey image gives what it gave as three
    equal channels. More channels repeat the kernels in turn, scaled by old/new so that the
    stem's outputs keep their size.
    """
    changed = replace(config, in_channels=in_channels)
    weight, had = tensors["stem.weight"], config.in_channels
    if in_channels == 1:
        stem = weight.sum(1, keepdim=True)
    else:
        stem = weight[:, [i % had for i in range(in_channels)]] * (had / in_channels)
    return changed, tensors | {"stem.weight": stem.contiguous()}


def change_classes(config: MixerConfig, tensors: Tensors, num_classes: int) -> Model:
    """A fresh head (kernel 0, bias `config.head_bias`) for other classes; 0 takes it away."""
    changed = replace(config, num_classes=num_classes)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    if num_classes:
        like = tensors["norm.bias"] if "norm.bias" in tensors else tensors["stem.bias"]
        body["head.weight"] = like.new_zeros(num_classes, config.width)
        body["head.bias"] = like.new_full((num_classes,), config.head_bias)
    return changed, body


# -- all together -----------------------------------------------------------------------------

Enlargement = Literal["shared", "dense", "resample"]
ENLARGEMENTS: tuple[Enlargement, ...] = ("shared", "dense", "resample")


def adapt(
    config: MixerConfig,
    tensors: Tensors,
    *,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    enlargement: Enlargement = "shared",
    method: Method = DEFAULT_METHOD,
) -> Model:
    """The weights for whatever is asked, by the functions above in the order that fits.

    An image a whole number of times as large is `enlargement`: shared tiles, dense blocks, or
    resampled like every other size. A patch size alone keeps the image size, so the grid
    changes; grids that change with the patch are always resampled.
    """
    _check_one_of("method", method, METHODS)
    _check_one_of("enlargement", enlargement, ENLARGEMENTS)
    model = config, dict(tensors)
    image = config.image_hw if image_size is None else as_pair(collapsed(image_size, "image_size"))
    if patch_size is not None and as_pair(collapsed(patch_size, "patch_size")) != config.patch_hw:
        patch = as_pair(collapsed(patch_size, "patch_size"))
        replace(config, image_size=image, patch_size=patch, tiles=1)  # refuses what does not divide
        model, enlargement = resize_patches(*model, patch, keep="grid"), "resample"
    model = _to_size(*model, image, enlargement, method)
    if in_channels is not None and in_channels != config.in_channels:
        model = change_channels(*model, in_channels)
    if num_classes is not None and num_classes != config.num_classes:
        model = change_classes(*model, num_classes)
    return model


def _to_size(
    config: MixerConfig,
    tensors: Tensors,
    image: tuple[int, int],
    enlargement: Enlargement,
    method: Method,
) -> Model:
    """Shared tiles compute what the native model does, so every size starts from one tile."""
    if image == config.image_hw:
        return separate(config, tensors) if enlargement == "dense" else (config, tensors)
    if config.tiles != 1:
        native = [n * side for n, side in zip(config.tile_grid, config.patch_hw, strict=True)]
        config = replace(config, image_size=(native[0], native[1]), tiles=1)
    counts = [new // old for new, old in zip(image, config.image_hw, strict=True)]
    whole = image == tuple(n * side for n, side in zip(counts, config.image_hw, strict=True))
    divided = all(n % p == 0 for n, p in zip(config.image_hw, config.patch_hw, strict=True))
    if not whole or not divided or enlargement == "resample":
        return resample(config, tensors, image, method)
    larger = enlarge(config, tensors, (counts[0], counts[1]))
    return separate(*larger) if enlargement == "dense" else larger
