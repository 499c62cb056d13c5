"""timm's registry: a name for each variant, tags for the authors' weights, what is not traced."""

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from mixerkit.checkpoint.zoo import fetch_published
from mixerkit.errors import UserError, how_to_install
from mixerkit.model.mixer import DropPath, PatchEmbedding
from mixerkit.model.token_mixers import Gelu, TokenLinear, TokenMlp
from mixerkit.spec.mixer import PUBLISHED
from mixerkit.spec.zoo import GOOGLE, PUBLISHED as ZOO, Published
from mixerkit.timm.model import TimmMixer

NAMES = {f"mixerkit_{label.replace('/', '').lower()}_224": label for label in PUBLISHED}
"""timm's name → our variant."""
MODULE = "mixerkit.timm"
"""Where timm looks for the functions and descriptions of what is registered."""
NOT_TRACED = (PatchEmbedding, TokenMlp, TokenLinear, DropPath, Gelu)
"""Modules that look at sizes or modes of their input: torch.fx calls them as a whole."""


def _tag(model: Published) -> str:
    """b16-imagenet21k-google → google_imagenet21k."""
    _, trained_on, publisher = model.name.split("-")
    return f"{publisher}_{trained_on}"


def _cfg(model: Published | None) -> dict[str, Any]:
    """timm's description of a variant, and of weights for it."""
    cfg: dict[str, Any] = dict(
        num_classes=model.num_classes if model else 1000,
        input_size=(3, 224, 224),
        pool_size=None,
        crop_pct=0.875,
        interpolation="bilinear",
        fixed_input_size=True,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        first_conv="stem",
        classifier="head",
        license="apache-2.0",
    )
    if model:
        cfg |= dict(url=GOOGLE + model.file, custom_load=True)
    return cfg


def _entrypoint(name: str, label: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build a variant."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models import build_model_with_cfg

        out_indices = kwargs.pop("out_indices", 3)
        if pretrained:
            kwargs["pretrained_cfg_overlay"] = _with_weights(name, kwargs)
        built: nn.Module = build_model_with_cfg(
            TimmMixer,
            name,
            pretrained,
            feature_cfg=dict(out_indices=out_indices, feature_cls="getter"),
            **({"label": label} | kwargs),
        )
        return built

    create.__name__ = create.__qualname__ = name
    create.__module__ = MODULE
    create.__doc__ = f"Mixer-{label} of mixerkit."
    return create


def _with_weights(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What is laid over timm's description: the authors' file, fetched and checked by us.

    timm's own cache knows a file by the last part of its address, and four of the authors' files
    are called Mixer-B_16.npz. A source that the caller names stays.
    """
    from timm.models import resolve_pretrained_cfg

    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    cfg = resolve_pretrained_cfg(name, kwargs.get("pretrained_cfg"), overlay)
    known = [model for model in ZOO.values() if cfg.url == GOOGLE + model.file]
    if cfg.file or cfg.state_dict or cfg.hf_hub_id or not known:
        return overlay
    if kwargs.get("cache_dir"):
        raise UserError(
            f"cache_dir={kwargs['cache_dir']!r} is not used for the authors' files: they are kept "
            f"in mixerkit below $XDG_CACHE_HOME. Leave it out."
        )
    return overlay | dict(file=str(fetch_published(known[0])), custom_load=True)


def register() -> list[str]:
    """Tell timm of every published variant and its weights; the names."""
    try:
        from timm.models import generate_default_cfgs, register_model, register_notrace_module
    except ImportError as error:
        raise UserError(f"timm is not installed: {how_to_install('timm')}") from error
    cfgs: dict[str, Any] = {}
    for name, label in NAMES.items():
        cfgs[f"{name}.untrained"] = _cfg(None)
        for model in ZOO.values():
            if model.variant == label and not model.file.startswith("hf://"):
                cfgs[f"{name}.{_tag(model)}"] = _cfg(model)
    module: Any = sys.modules[MODULE]
    module.default_cfgs = generate_default_cfgs(cfgs)
    for name, label in NAMES.items():
        setattr(module, name, register_model(_entrypoint(name, label)))
    for kind in NOT_TRACED:
        register_notrace_module(kind)
    return list(NAMES)
