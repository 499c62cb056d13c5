"""timm's Mixer, unmodified, at the shape of any of our configurations: images → logits.

It is the implementation that most people run, so speed and accuracy are compared with it.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from mixerkit.checkpoint.layouts import TIMM, their_name
from mixerkit.errors import UserError, how_to_install
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig


def timm_mixer(config: MixerConfig) -> nn.Module:
    """`timm.models.mlp_mixer.MlpMixer` of this shape with timm's own initial weights.

    Refuses what timm's Mixer cannot be: other mixers, no norm, padding, a head bias and the
    paper's kind of stochastic depth.
    """
    _check_expressible(config)
    width = config.width
    # Half a unit more: timm takes the whole part of ratio × width.
    ratios = ((config.token_width + 0.5) / width, (config.channel_width + 0.5) / width)
    # its hints are narrower than what it takes: pairs, partials
    build: Any = timm_models().mlp_mixer.MlpMixer
    model: nn.Module = build(
        num_classes=config.num_classes,
        img_size=config.image_hw,
        in_chans=config.in_channels,
        patch_size=config.patch_hw,
        num_blocks=config.depth,
        embed_dim=width,
        mlp_ratio=ratios,
        norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),
        act_layer=partial(nn.GELU, approximate="tanh" if config.gelu == "tanh" else "none"),
        proj_drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
    )
    return model


def timm_models() -> Any:
    """The package `timm.models`, or an error that says how to install it."""
    try:
        from timm import models
    except ImportError as error:
        raise UserError(
            f"timm is needed for this comparison and is not installed: {how_to_install('timm')}"
        ) from error
    return models


def copy_to_timm(model: MlpMixer) -> nn.Module:
    """timm's Mixer with the same weights, and so the same logits, as `model`."""
    peer = timm_mixer(replace(model.config, head_bias=0.0))  # the bias itself is copied
    tensors = {str(their_name(TIMM, name)): value for name, value in model.state_dict().items()}
    peer.load_state_dict(tensors, strict=True)
    return peer.train(model.training)


def counted(model: nn.Module, image: tuple[int, ...]) -> tuple[int, int]:
    """(parameters, multiply-adds of one image [I, H, W]) of a model on PyTorch's meta device, where
    nothing is computed and attention is the products that it is."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, *image, device="meta"))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def _check_expressible(config: MixerConfig) -> None:
    differences = {
        "token_mixer": config.token_mixer != "mlp",
        "channel_mixer": config.channel_mixer != "mlp",
        "norm": not config.norm,
        "pad": config.pad,
        "tiles": config.tiles != 1,
        "head_bias": config.head_bias != 0,
        "drop_path_kind": config.drop_path > 0 and config.drop_path_kind != "timm",
    }
    found = [
        f"{name}={getattr(config, name)!r}" for name, differs in differences.items() if differs
    ]
    if found:
        raise UserError(f"timm's Mixer has no counterpart of {', '.join(found)}.")
