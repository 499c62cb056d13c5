"""The beginning of a Mixer as an ONNX graph: from images to tokens.

Letters: B batch, I image channels, H W image height and width, h w those of a patch, S patches
(tokens) of a tile, C channels.
"""

from collections.abc import Mapping

import numpy as np

from mixerkit.inference.graph import Graph, Range, onnx_module
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

STEM = "stem"
"""The patch embedding among the products of a model."""
MIDDLE = 128
PIXELS = Range(-MIDDLE / 255, (255 - MIDDLE) / 255)
"""Of 8-bit pixels from 0 to 1 with their middle taken off: each is one of the 255 steps."""


def normalisation(graph: Graph, pixels_BHWI: str, preprocess: Preprocess) -> str:
    """8-bit pixels as the model's input, float32 [B, I, H, W]."""
    with graph.within("pixels"):
        x_BHWI = graph.op("Cast", pixels_BHWI, to=onnx_module().TensorProto.FLOAT)
        scale = 1 / (255 * np.array(preprocess.std))
        offset = -np.array(preprocess.mean) / np.array(preprocess.std)
        x_BHWI = graph.op("Mul", x_BHWI, graph.constant(scale.astype(np.float32), "scale"))
        x_BHWI = graph.add(x_BHWI, graph.constant(offset.astype(np.float32), "offset"))
        return graph.transpose(x_BHWI, 0, 3, 1, 2)


def of_pixels(weights: Mapping[str, np.ndarray], preprocess: Preprocess) -> dict[str, np.ndarray]:
    """The same function with the patch embedding of pixels as `PIXELS` has them: v / std + offset
    for each channel is the model's input."""
    mean_I, std_I = (np.array(one, np.float64) for one in (preprocess.mean, preprocess.std))
    offset_I = (MIDDLE / 255 - mean_I) / std_I
    weight_CIhw = weights[f"{STEM}.weight"].astype(np.float64)
    shift_C = (weight_CIhw * offset_I[:, None, None]).sum(axis=(1, 2, 3))
    return dict(weights) | {
        f"{STEM}.weight": weight_CIhw / std_I[:, None, None],
        f"{STEM}.bias": weights[f"{STEM}.bias"] + shift_C,
    }


def rounded_patches(
    graph: Graph, config: MixerConfig, images: str, preprocess: Preprocess, pixels: bool
) -> str:
    """Tokens [B·tiles, S, C] by a product in 8 bits with weights `of_pixels`. The images are 8-bit
    `pixels` [B, H, W, I], or the model's input [B, I, H, W], of which pixels are made again; in
    either case they are exact."""
    (rows, columns), (down, across) = config.tile_grid, config.tiles_hw
    (high, wide), channels = config.patch_hw, config.in_channels
    with graph.within(STEM):
        kernel_CIhw = graph.weight("weight")
        if pixels:
            # said to be rounded: of 8-bit images OpenVINO makes floats, and rounds them its own way
            x_BHWI = graph.op("Cast", images, to=onnx_module().TensorProto.FLOAT)
            x_BHWI = graph.op("Mul", x_BHWI, graph.number(PIXELS.scale))
            steps = graph.steps(graph.add(x_BHWI, graph.number(PIXELS.low)), PIXELS)
            steps = graph.reshape(steps, -1, down, rows, high, across, columns, wide * channels)
            steps = graph.transpose(steps, 0, 1, 4, 2, 5, 3, 6)
            kernel_CIhw = kernel_CIhw.transpose(0, 2, 3, 1)
        else:
            steps = graph.steps(_pixels_again(graph, images, preprocess), PIXELS)
            steps = graph.reshape(steps, -1, channels, down, rows, high, across, columns, wide)
            steps = graph.transpose(steps, 0, 2, 5, 3, 6, 1, 4, 7)
        steps_BSP = graph.reshape(steps, -1, rows * columns, channels * high * wide)
        x_BSP = graph.of_steps(steps_BSP, PIXELS)
        kernel_CP = kernel_CIhw.reshape(config.width, -1)
        x_BSC = graph.op("MatMul", x_BSP, graph.rounded_matrix(kernel_CP))
        x_BSC = graph.add(x_BSC, graph.constant(graph.weight("bias"), "bias"))
        return with_positions(graph, x_BSC)


def _pixels_again(graph: Graph, x_BIHW: str, preprocess: Preprocess) -> str:
    """The model's input as `PIXELS` has it."""
    std_I, mean_I = (np.array(one, np.float64) for one in (preprocess.std, preprocess.mean))
    for kind, values_I in (("Mul", std_I), ("Add", mean_I - MIDDLE / 255)):
        constant = graph.constant(values_I.astype(np.float32)[:, None, None], kind.lower())
        x_BIHW = graph.op(kind, x_BIHW, constant)
    return x_BIHW


def can_be_rounded(config: MixerConfig) -> bool:
    """Whether the patch embedding can be a product: patches that reach over the edge of an image
    are left to the convolution."""
    return not any(edges(config))


def patches(graph: Graph, config: MixerConfig, x_BIHW: str) -> str:
    """Tokens [B·tiles, S, C] of images."""
    (rows, columns), (down, across) = config.tile_grid, config.tiles_hw
    with graph.within("stem"):
        kernel, bias = (graph.constant(graph.weight(name), name) for name in ("weight", "bias"))
        x_BCHW = graph.op(
            "Conv",
            x_BIHW,
            kernel,
            bias,
            kernel_shape=config.patch_hw,
            strides=config.patch_hw,
            pads=edges(config),
        )
        if down * across > 1:
            x = graph.reshape(x_BCHW, 0, 0, down, rows, across, columns)
            x = graph.transpose(x, 0, 2, 4, 3, 5, 1)
            x_BSC = graph.reshape(x, -1, rows * columns, config.width)
        else:
            x_BSC = graph.transpose(graph.reshape(x_BCHW, 0, 0, rows * columns), 0, 2, 1)
        return with_positions(graph, x_BSC)


def with_positions(graph: Graph, x_BSC: str) -> str:
    """With what the model adds for the place of each token, if it does."""
    if not graph.has("positions"):
        return x_BSC
    return graph.add(x_BSC, graph.constant(graph.weight("positions"), "positions"))


def edges(config: MixerConfig) -> list[int]:
    """Zeros above, left, below and right, as Flax's SAME puts them."""
    missing = [-i % p for i, p in zip(config.image_hw, config.patch_hw, strict=True)]
    before = [n // 2 for n in missing]
    return before + [n - b for n, b in zip(missing, before, strict=True)]
