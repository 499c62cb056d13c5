"""Does the order of patches and pixels matter? (paper, section 3.4)

"patches": one order of the patches and one of the pixels inside every patch, the same for all
images. "pixels": one order of all pixels of the image. A Mixer is indifferent to the first in an
exact sense: permute its weights along and its outputs are the same (`permuted`).

    S tokens   P patch height · width
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixerkit.errors import UserError, unknown
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.study.grid import ORDERS

Axes = dict[str, tuple[str, ...]]
MATRIX, BIAS = ("in", "out"), ("out",)
MLP: Axes = {"fc1.weight": ("in",), "fc2.weight": ("out",), "fc2.bias": BIAS}
ALONG: dict[str, Axes] = {
    "mlp": MLP,
    "untied": MLP,
    "grouped": MLP,
    "linear": {"fc.weight": MATRIX, "fc.bias": BIAS},
    "random": {"weight": MATRIX},
    "gated": {"gate.weight": MATRIX, "gate.bias": BIAS},
    "attention": {},
    "identity": {},
}
"""Token mixers that know tokens by number alone: which axes of which weights are tokens, coming in
or going out. The others know where tokens are on the grid."""


@dataclass(frozen=True)
class PatchOrder:
    """`patches` [S]: which patch comes to each place; `pixels` [P]: the same for those of every
    patch. All in raster order."""

    patches: Tensor
    pixels: Tensor

    def of_pixels(self, config: MixerConfig) -> Tensor:
        """[H·W]: which pixel of the image comes to each place."""
        (rows, columns), (height, width) = config.grid, config.patch_hw
        raster_HW = torch.arange(rows * height * columns * width)
        number_SP = (
            raster_HW.view(rows, height, columns, width).transpose(1, 2).reshape(rows * columns, -1)
        )
        moved_SP = number_SP[self.patches][:, self.pixels]
        return moved_SP.view(rows, columns, height, width).transpose(1, 2).reshape(-1)


def patch_order(config: MixerConfig, seed: int) -> PatchOrder:
    """A random order, always the same for the same seed."""
    _check_whole(config)
    generator = torch.Generator().manual_seed(seed)
    height, width = config.patch_hw
    return PatchOrder(
        torch.randperm(config.num_patches, generator=generator),
        torch.randperm(height * width, generator=generator),
    )


def pixel_order(config: MixerConfig, order: str, seed: int) -> Tensor:
    """[H·W]: which pixel comes to each place in `order`, one of `ORDERS`."""
    if order == "patches":
        return patch_order(config, seed).of_pixels(config)
    if order != "pixels":
        raise unknown("order", order, ORDERS)
    height, width = config.image_hw
    return torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))


def _check_whole(config: MixerConfig) -> None:
    if config.pad:
        raise UserError("Patches that are filled up cannot change places: give pad=false.")


class Reordered(nn.Module):
    """`model` behind images whose pixels have changed places: [B, I, H, W] → what it says."""

    def __init__(self, model: nn.Module, order_HW: Tensor) -> None:
        super().__init__()
        self.model = model
        self.order_HW: Tensor
        self.register_buffer("order_HW", order_HW)

    def forward(self, image_BIHW: Tensor) -> Tensor:
        """The model's outputs for the reordered images."""
        pixels_BIN = image_BIHW.flatten(2)[:, :, self.order_HW]
        logits: Tensor = self.model(pixels_BIN.view_as(image_BIHW))
        return logits


@torch.no_grad()
def permuted(model: MlpMixer, order: PatchOrder) -> MlpMixer:
    """The model that says of reordered images what `model` says of them as they were: the stem's
    kernel reordered, and every axis of tokens in token mixing (`ALONG`)."""
    config, tokens = model.config, order.patches
    _check_whole(config)
    if config.token_mixer not in ALONG or config.tiles != 1:
        raise UserError(
            f"Weights can be permuted along for the token mixers {', '.join(ALONG)} without "
            f"tiles, found {config.token_mixer} with {config.tiles}."
        )
    result = copy.deepcopy(model)
    kernel = result.stem.weight
    kernel.copy_(kernel.flatten(2)[:, :, order.pixels].view_as(kernel))
    if config.token_mixer == "attention":
        positions_SC = result.get_parameter("stem.positions")
        positions_SC.copy_(positions_SC[..., tokens, :])
    for block in result.blocks:
        tensors = block.get_submodule("token_mixing").state_dict()  # which share their memory
        for name, sides in ALONG[config.token_mixer].items():
            tensor = tensors[name]
            if name.endswith("bias"):
                each_GS = tensor.view(-1, config.num_patches)
                each_GS.copy_(each_GS[:, tokens])
                continue
            if "in" in sides:
                tensor.copy_(tensor[..., tokens])
            if "out" in sides:
                tensor.copy_(tensor[..., tokens, :])
    return result


@torch.no_grad()
def identity(label: str = "S/32", seed: int = 0, images: int = 4) -> dict[str, float | str]:
    """How far the outputs of a permuted model for reordered images are from the model's own, in
    float64 and float32, over their largest: random weights (no head of zeros) and noise."""
    config = variant(label)
    torch.manual_seed(seed)
    model = MlpMixer(config).eval()
    for parameter in model.parameters():  # biases too: zeros would prove nothing
        parameter.add_(0.02 * torch.randn_like(parameter))
    order = patch_order(config, seed)
    image_BIHW = torch.randn(images, config.in_channels, *config.image_hw)
    found: dict[str, float | str] = {"model": label}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        model, image_BIHW = model.to(dtype), image_BIHW.to(dtype)
        own = model(image_BIHW)
        other = Reordered(permuted(model, order), order.of_pixels(config))(image_BIHW)
        found[f"difference_{name}"] = float((own - other).abs().max() / own.abs().max())
        moved = Reordered(model, order.of_pixels(config))(image_BIHW)
        found[f"difference_{name}_without"] = float((own - moved).abs().max() / own.abs().max())
    return found
