"""What a Mixer costs, in closed form and without PyTorch: parameters, MACs, activation bytes.

A MAC is one multiply-add of a matrix product; norms, activations and additions are not
counted, as in the field's tables. Letters as in `mixer.py`.
"""

from dataclasses import dataclass

from mixerkit.spec.mixer import MixerConfig


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
    parts = [Part("patch embedding", (S, C), C * patch + C, S * patch * C, S * patch)]
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
    S, C, T, shape = config.tile_patches, config.width, config.token_width, config.num_patches
    tiles = config.num_patches // S
    if config.token_mixer == "linear":
        return Part(name, (shape, C), S * S + S, tiles * S * S * C, tiles * S * C)
    saved = tiles * (S * C + 2 * T * C)
    return Part(name, (shape, C), 2 * S * T + T + S, tiles * 2 * S * T * C, saved)


def _channel_mixing(config: MixerConfig, name: str) -> Part:
    S, C, D = config.num_patches, config.width, config.channel_width
    if config.channel_mixer == "linear":
        return Part(name, (S, C), C * C + C, S * C * C, S * C)
    return Part(name, (S, C), 2 * C * D + D + C, 2 * S * C * D, S * C + 2 * S * D)
