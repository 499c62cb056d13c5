"""The Mixer as an ONNX graph, shaped for fast inference; PyTorch has no part in it.

Letters: B batch, I image channels, H W image height and width, S patches (tokens) of a tile,
C channels, D channel-mixing width, K classes. The batch may have any size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixerkit.inference.graph import Graph, Range, onnx_module
from mixerkit.inference.stem_graph import STEM, normalisation, of_pixels, patches, rounded_patches
from mixerkit.inference.token_graphs import TOKEN_GRAPHS
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import to_dict

METADATA = "mixerkit"
"""The key of the metadata that says what the model is."""
UNITS = "blocks.0.token_mixing.fc1/Gelu"
"""What the first block's token-mixing units say of an image."""


@dataclass(frozen=True)
class Form:
    """What the graph takes and gives.

    `pixels`: 8-bit images [B, H, W, I] as decoders give them, which the graph normalises; else
    normalised float32 [B, I, H, W]. `probabilities`: the softmax of the logits. `half`: matrices
    are stored in float16. `left_of_tokens`: token mixing is W·x, else (xᵀ·Wᵀ)ᵀ. `units`: `UNITS`
    are a second output, for a token mixing of MLPs.
    """

    pixels: bool = False
    probabilities: bool = False
    half: bool = False
    left_of_tokens: bool = True
    units: bool = False

    @property
    def gives(self) -> str:
        """The name of the output of a model with a head."""
        return "probabilities" if self.probabilities else "logits"


PLAIN = Form()


@dataclass(frozen=True)
class EightBits:
    """Which products are computed in 8 bits. `ranges`: of what goes into each, by the part of the
    model that it is. `smooth`: for a LayerNorm that a product follows, what each channel is divided
    by there and multiplied by in the product (Xiao et al. 2023, SmoothQuant, section 4). `pixels`:
    how they became the model's input, where the patch embedding is one of the products."""

    ranges: Mapping[str, Range] = field(default_factory=dict)
    smooth: Mapping[str, np.ndarray] = field(default_factory=dict)
    pixels: Preprocess | None = None


def mixer_graph(
    config: MixerConfig,
    weights: Mapping[str, np.ndarray],
    preprocess: Preprocess | None = None,
    form: Form = PLAIN,
    eight_bits: EightBits | None = None,
) -> Any:
    """An ONNX model: images → logits [B, K], or features [B, C] where there is no head."""
    graph = written(config, weights, preprocess, form, eight_bits)
    about = described(config, preprocess, form)
    if eight_bits:
        about["eight_bits"] = sorted(eight_bits.ranges)
    return finished(graph, config, form, about, [UNITS] if form.units else [])


def written(
    config: MixerConfig,
    weights: Mapping[str, np.ndarray],
    preprocess: Preprocess | None,
    form: Form,
    eight_bits: EightBits | None = None,
) -> Graph:
    """The operations; the last one gives the result."""
    ranges, smooth = (eight_bits.ranges, eight_bits.smooth) if eight_bits else ({}, {})
    left = form.left_of_tokens and not ranges
    weights = smoothed(config, folded(config, weights), smooth)
    if eight_bits and STEM in ranges:
        assert eight_bits.pixels, "how pixels became the model's input"
        graph = Graph(of_pixels(weights, eight_bits.pixels), ranges, left)
        x_BSC = rounded_patches(graph, config, "images", eight_bits.pixels, form.pixels)
    else:
        graph, x = Graph(weights, ranges, left), "images"
        if form.pixels:
            assert preprocess, "how pixels are normalised"
            x = normalisation(graph, x, preprocess)
        x_BSC = patches(graph, config, x)
    for index in range(config.depth):
        with graph.within(f"blocks.{index}"):
            x_BSC = block(graph, config, x_BSC)
    result = head(graph, config, x_BSC)
    if form.probabilities:
        graph.op("Softmax", result, axis=-1)
    return graph


def finished(
    graph: Graph,
    config: MixerConfig,
    form: Form,
    about: Mapping[str, Any],
    more: Sequence[str] = (),
) -> Any:
    """The ONNX model, with `more` tensors of three axes as outputs after its result."""
    onnx, name = onnx_module(), about["output"]
    graph.nodes[-1].output[0] = name
    make, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    outputs = [make(name, kind, ["batch", config.num_classes or config.width])]
    outputs += [make(one, kind, [f"{one}:{axis}" for axis in range(3)]) for one in more]
    metadata = {METADATA: json.dumps(about)}
    return graph.model([_input(config, form)], outputs, metadata, form.half)


def described(config: MixerConfig, preprocess: Preprocess | None, form: Form) -> dict[str, Any]:
    """What an exported model says of itself."""
    return {
        "model": to_dict(config),
        "preprocess": to_dict(preprocess) if preprocess else None,
        "input": "pixels" if form.pixels else "normalised",
        "output": form.gives if config.num_classes else "features",
        "stored": "float16" if form.half else "float32",
    }


def _input(config: MixerConfig, form: Form) -> Any:
    onnx, sides = onnx_module(), config.image_hw
    make = onnx.helper.make_tensor_value_info
    if form.pixels:
        return make("images", onnx.TensorProto.UINT8, ["batch", *sides, config.in_channels])
    return make("images", onnx.TensorProto.FLOAT, ["batch", config.in_channels, *sides])


def block(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Mix across tokens, then across channels, each added to its input."""
    y_BSC = norm(graph, config, x_BSC, "token_norm")
    with graph.within("token_mixing"):
        y_BSC = TOKEN_GRAPHS[config.token_mixer](graph, config, y_BSC)
    x_BSC = graph.add(x_BSC, y_BSC)
    y_BSC = norm(graph, config, x_BSC, "channel_norm")
    with graph.within("channel_mixing"):
        y_BSC = channel_mixing(graph, config, y_BSC)
    return graph.add(x_BSC, y_BSC)


def norm(graph: Graph, config: MixerConfig, x_BSC: str, name: str) -> str:
    """LayerNorm, or nothing for the article's form."""
    if not config.norm:
        return x_BSC
    with graph.within(name):
        return graph.layer_norm(x_BSC, config.norm_eps)


def channel_mixing(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """The same for every token."""
    if config.channel_mixer == "linear":
        with graph.within("fc"):
            return graph.dense(x_BSC)
    with graph.within("fc1"):
        h_BSD = graph.gelu(graph.dense(x_BSC), config.gelu)
    with graph.within("fc2"):
        return graph.dense(h_BSD)


def head(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Norm, mean over the tokens, and the head where there is one."""
    x_BSC = norm(graph, config, x_BSC, "norm")
    with graph.within("head"):
        x_BSC = graph.reshape(x_BSC, -1, config.num_patches, config.width)
        features = graph.op("ReduceMean", x_BSC, graph.numbers(1), keepdims=0)
        if not config.num_classes:
            return features
        return graph.dense(features)


def folded(config: MixerConfig, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same function with LayerNorm's weight and bias inside the products that follow it, where
    these go over the channels: W·(γx̂ + β) + b = (W·γ)·x̂ + (W·β + b)."""
    result = dict(weights)
    for norm_name, product in followed(config):
        scale, shift = (weights[f"{norm_name}.{one}"] for one in ("weight", "bias"))
        weight = weights[f"{product}.weight"].astype(np.float64)
        result[f"{product}.weight"] = weight * scale
        result[f"{product}.bias"] = weights[f"{product}.bias"] + weight @ shift
        result[f"{norm_name}.weight"] = np.ones_like(scale)
        result[f"{norm_name}.bias"] = np.zeros_like(shift)
    return result


def smoothed(
    config: MixerConfig, weights: Mapping[str, np.ndarray], smooth: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The same function with the channels of `folded` LayerNorms divided by `smooth`, and the
    matrices that follow multiplied by it."""
    result = dict(weights)
    for norm_name, product in followed(config):
        if norm_name in smooth:
            scale_C = smooth[norm_name].astype(np.float64)
            result[f"{norm_name}.weight"] = result[f"{norm_name}.weight"] / scale_C
            result[f"{norm_name}.bias"] = result[f"{norm_name}.bias"] / scale_C
            result[f"{product}.weight"] = result[f"{product}.weight"] * scale_C
    return result


def followed(config: MixerConfig) -> list[tuple[str, str]]:
    """Every LayerNorm after which a product over the channels comes, and that product."""
    if not config.norm:
        return []
    first = "fc" if config.channel_mixer == "linear" else "fc1"
    pairs = [("norm", "head")] if config.num_classes else []
    for index in range(config.depth):
        name = f"blocks.{index}"
        pairs.append((f"{name}.channel_norm", f"{name}.channel_mixing.{first}"))
        if config.token_mixer in OVER_CHANNELS:
            product = f"{name}.token_mixing.{OVER_CHANNELS[config.token_mixer]}"
            pairs.append((f"{name}.token_norm", product))
    return pairs


OVER_CHANNELS = {"gated": "proj_in", "attention": "qkv"}
"""Token mixers that begin with a product over the channels."""
