"""Models of timm in the place of a recipe's own, and what any model costs."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from torch import nn

from mixerkit.benchmark.peers import counted, timm_mixer, timm_models
from mixerkit.errors import UserError, unknown
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import MixerConfig

KNOWN = (
    "image_size", "in_channels", "num_classes", "width", "depth", "patch_size", "channel_width",
    "token_width", "token_mixer", "token_groups", "gelu", "norm_eps",
)  # fmt: skip
"""Settings of a Mixer that a peer has too, or has nothing to do with; others must be as they are in
a new `MixerConfig`."""


def vision_transformer(config: MixerConfig) -> nn.Module:
    """timm's ViT of a Mixer's shape, with a class token; `token_groups` heads."""
    _check("vit", config)
    build: Any = timm_models().vision_transformer.VisionTransformer
    model: nn.Module = build(
        img_size=config.image_hw,
        patch_size=config.patch_hw,
        in_chans=config.in_channels,
        num_classes=config.num_classes,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.token_groups,
        # half a unit more: timm takes the whole part of ratio × width
        mlp_ratio=(config.channel_width + 0.5) / config.width,
        act_layer=partial(nn.GELU, approximate="tanh" if config.gelu == "tanh" else "none"),
        norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),
    )
    return model


def resnet(config: MixerConfig) -> nn.Module:
    """timm's ResNet of basic blocks for small images: `depth` blocks in each of four stages of
    `width` (an even number), 2, 4 and 8 times `width` channels, behind timm's deep stem, which here
    has neither stride nor pooling."""
    if config.width % 2:
        raise UserError(f"The width of a ResNet must be even here, found {config.width}.")
    model = _resnet("resnet", config, stem_type="deep", stem_width=config.width // 2)
    model.conv1[0].stride = (1, 1)
    return model


def resnet_7x7(config: MixerConfig) -> nn.Module:
    """The same stages behind timm's stem for large images: 64 filters of 7 × 7 with stride 2, which
    can be looked at; here without the pooling that follows it there."""
    return _resnet("resnet-7x7", config)


def _resnet(peer: str, config: MixerConfig, **stem: Any) -> Any:
    """timm's ResNet of basic blocks with such a stem, and without pooling behind it."""
    _check(peer, config)
    timm = timm_models().resnet
    build: Any = timm.ResNet
    model = build(
        timm.BasicBlock,
        (config.depth,) * 4,
        num_classes=config.num_classes,
        in_chans=config.in_channels,
        channels=tuple(config.width * factor for factor in (1, 2, 4, 8)),
        **stem,
    )
    model.maxpool = nn.Identity()
    return model


def _check(peer: str, config: MixerConfig) -> None:
    """Refuse settings that the peer would ignore."""
    plain = MixerConfig()
    found = [
        f"{field.name}={getattr(config, field.name)!r}"
        for field in fields(config)
        if field.name not in KNOWN and getattr(config, field.name) != getattr(plain, field.name)
    ]
    if found:
        raise UserError(f"The peer {peer} has no counterpart of {', '.join(found)}.")


PEERS: dict[str, Callable[[MixerConfig], nn.Module]] = {
    "mixer": timm_mixer,
    "vit": vision_transformer,
    "resnet": resnet,
    "resnet-7x7": resnet_7x7,
}


def peer_of(name: str, config: MixerConfig) -> nn.Module:
    """The peer of that name, with fresh weights, in the sizes that `config` names."""
    if name not in PEERS:
        raise unknown("peer", name, PEERS)
    return PEERS[name](config)


def cost_of(peer: str, config: MixerConfig) -> tuple[int, int]:
    """(parameters, multiply-adds of one image) of the model itself, in closed form, or of a peer as
    PyTorch counts them."""
    if not peer:
        priced = cost(config)
        return priced.parameters, priced.macs
    return counted(peer_of(peer, config).to("meta"), (config.in_channels, *config.image_hw))
