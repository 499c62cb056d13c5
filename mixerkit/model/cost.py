"""What a Mixer costs, in closed form and without PyTorch: parameters, MACs, activation bytes.

A MAC is one multiply-add of a matrix product or a convolution; norms, activations, gates and
additions are not counted, as in the field's tables. A Fourier transform counts half its operations.
Letters as in `mixer.py`; G groups of channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.token_mixers import KERNEL


@dataclass(frozen=True)
class Part:
    """One step of the walk through the model; counts are for one image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    saved: int
    """Numbers kept for the backward pass by eager autograd."""


@dataclass(frozen=True)
class Cost:
    """Totals and the parts that they are the sums of."""

    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """Trainable numbers."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-adds of one image's forward pass."""
        return sum(part.macs for part in self.parts)

    def activation_bytes(self, batch_size: int = 1, bytes_each: int = 4) -> int:
        """Bytes that a training step keeps between forward and backward."""
        return sum(part.saved for part in self.parts) * batch_size * bytes_each


def cost(config: MixerConfig) -> Cost:
    """The cost of `config`, part by part in the order of the forward pass."""
    S, C = config.num_patches, config.width
    patch_h, patch_w = config.patch_hw
    patch = config.in_channels * patch_h * patch_w
    positions = config.tile_patches * C if config.token_mixer == "attention" else 0
    stem = C * patch + C + positions
    parts = [Part("patch embedding", (S, C), stem, S * patch * C, S * patch)]
    for i in range(config.depth):
        parts += _block(config, f"block {i + 1}")
    parts.append(_norm(config, "last norm"))
    parts.append(Part("mean over patches", (C,), 0, 0, 0))
    if config.num_classes:
        K = config.num_classes
        parts.append(Part("head", (K,), C * K + K, C * K, C))
    return Cost(tuple(parts))


def _block(config: MixerConfig, name: str) -> list[Part]:
    return [
        _norm(config, f"{name} norm before tokens"),
        _token_mixing(config, f"{name} token mixing"),
        _norm(config, f"{name} norm before channels"),
        _channel_mixing(config, f"{name} channel mixing"),
    ]


def _norm(config: MixerConfig, name: str) -> Part:
    """Keeps its input and two numbers a token."""
    S, C = config.num_patches, config.width
    if not config.norm:
        return Part(name, (S, C), 0, 0, 0)
    return Part(name, (S, C), 2 * C, 0, S * C + 2 * S)


def _token_mixing(config: MixerConfig, name: str) -> Part:
    """Tiles share the parameters; each costs what one does."""
    tiles = config.num_patches // config.tile_patches
    found = TOKEN_MIXING[config.token_mixer](config)
    shape = (config.num_patches, config.width)
    return Part(name, shape, found.parameters, tiles * found.macs, tiles * found.saved)


@dataclass(frozen=True)
class Mixing:
    """Token mixing of one tile: `Part`'s figures."""

    parameters: int
    macs: int
    saved: int


def _mlp(config: MixerConfig, groups: int = 1) -> Mixing:
    """Two matrices for each of `groups` groups of channels."""
    S, C, T = config.tile_patches, config.width, config.token_width
    return Mixing(groups * (2 * S * T + T + S), 2 * S * T * C, S * C + 2 * T * C)


def _linear(config: MixerConfig) -> Mixing:
    S, C = config.tile_patches, config.width
    return Mixing(S * S + S, S * S * C, S * C)


def _gated(config: MixerConfig) -> Mixing:
    """Maps in and out (C → 2C, C → C), the norm of one half, the gate along the tokens."""
    S, C = config.tile_patches, config.width
    parameters = (2 * C * C + 2 * C) + 2 * C + (S * S + S) + (C * C + C)
    return Mixing(parameters, 3 * S * C * C + S * S * C, 8 * S * C + 2 * S)


def _attention(config: MixerConfig) -> Mixing:
    """Of each head PyTorch keeps queries, keys, values, outputs and a number for each token."""
    S, C, G = config.tile_patches, config.width, config.token_groups
    parameters = 4 * C * C + 4 * C
    return Mixing(parameters, 4 * S * C * C + 2 * S * S * C, 5 * S * C + G * S)


def _fourier_macs(values: int, length: int) -> int:
    """About what a Fast Fourier Transform of real values takes along axes of `length` in all: half
    of 5 · N · log2 N operations for N complex values, two of them a MAC."""
    return round(1.25 * values * log2(length))


def _fourier(config: MixerConfig) -> Mixing:
    S, C = config.tile_patches, config.width
    return Mixing(0, _fourier_macs(S * C, S * C), 0)


def _global_filter(config: MixerConfig) -> Mixing:
    """There and back; keeps its input and the spectrum."""
    S, C = config.tile_patches, config.width
    rows, columns = config.tile_grid
    filters = 2 * rows * (columns // 2 + 1) * C
    return Mixing(filters, 2 * _fourier_macs(S * C, S), S * C + filters)


def _depthwise(config: MixerConfig) -> Mixing:
    S, C, area = config.tile_patches, config.width, KERNEL * KERNEL
    return Mixing(C * area + C, S * C * area, 2 * S * C)


def _circulant(config: MixerConfig) -> Mixing:
    """A kernel and a bias; computed as the whole matrix, which is also kept."""
    S, C = config.tile_patches, config.width
    return Mixing(S + 1, S * S * C, S * C)


TOKEN_MIXING: dict[str, Callable[[MixerConfig], Mixing]] = {
    "mlp": _mlp,
    "linear": _linear,
    "gated": _gated,
    "attention": _attention,
    "pool": lambda config: Mixing(0, 0, config.tile_patches * config.width),
    "fourier": _fourier,
    "global-filter": _global_filter,
    "depthwise": _depthwise,
    "shift": lambda config: Mixing(0, 0, 0),
    "random": lambda config: Mixing(0, config.tile_patches**2 * config.width, 0),
    "circulant": _circulant,
    "untied": lambda config: _mlp(config, config.width),
    "grouped": lambda config: _mlp(config, config.token_groups),
    "identity": lambda config: Mixing(0, 0, 0),
}


def _channel_mixing(config: MixerConfig, name: str) -> Part:
    S, C, D = config.num_patches, config.width, config.channel_width
    if config.channel_mixer == "linear":
        return Part(name, (S, C), C * C + C, S * C * C, S * C)
    return Part(name, (S, C), 2 * C * D + D + C, 2 * S * C * D, S * C + 2 * S * D)
