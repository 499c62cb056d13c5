"""The model computes what the paper, timm and the article compute."""

import numpy as np
import pytest
import torch
from torch import nn

from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from tests import oracle
from tests.model.random_weights import SMALL, random_images, random_mixer

RECTANGLE = variant("S/16", image_size=(96, 160), depth=3, num_classes=7)
SHAPES = {"S/16": (variant("S/16"), 1), "B/16": (variant("B/16"), 1), "rectangle": (RECTANGLE, 2)}
NAMES = ["S/16", pytest.param("B/16", marks=pytest.mark.slow), "rectangle"]


def changed(config: MixerConfig, **changes) -> MixerConfig:
    return MixerConfig(**(vars(config) | changes))


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_the_numpy_oracle(name, gelu):
    config, batch = SHAPES[name]
    config = changed(config, gelu=gelu)
    model, images = random_mixer(config), random_images(config, batch)
    weights = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    expected = oracle.mixer(
        images.numpy(), weights, patch=config.patch_hw, depth=config.depth, gelu=gelu
    )
    with torch.inference_mode():
        assert oracle.difference(model(images), expected) < 1e-10


@pytest.mark.parametrize("change", [{"gelu": "erf"}, {"norm_eps": 1e-5}])
def test_the_oracle_notices_another_gelu_and_another_epsilon(change):
    model, images = random_mixer(SMALL), random_images(SMALL)
    other = MlpMixer(changed(SMALL, **change)).double().eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert oracle.difference(other(images), model(images)) > 1e-8


def timm_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors under timm's names."""
    names = {
        "stem.": "stem.proj.",
        ".token_norm.": ".norm1.",
        ".token_mixing.": ".mlp_tokens.",
        ".channel_norm.": ".norm2.",
        ".channel_mixing.": ".mlp_channels.",
    }
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_timm_with_copied_weights(name):
    from timm.models.mlp_mixer import MlpMixer as TimmMixer

    config, batch = SHAPES[name]
    config = changed(config, gelu="erf")
    model = random_mixer(config, torch.float32)
    timm_model = TimmMixer(
        num_classes=config.num_classes,
        img_size=config.image_hw,
        patch_size=config.patch_size,
        num_blocks=config.depth,
        embed_dim=config.width,
    ).eval()
    timm_model.load_state_dict(timm_names(model.state_dict()), strict=True)
    images = random_images(config, batch, torch.float32)
    with torch.inference_mode():
        assert oracle.difference(model(images), timm_model(images)) < 1e-5


def article_by_hand(model: MlpMixer, images: torch.Tensor) -> torch.Tensor:
    """The walk of the article with its own layers: [B, C, 14, 14] → [B, C, 196] → …"""
    x_BCS = nn.functional.conv2d(images, model.stem.weight, model.stem.bias, stride=16).flatten(2)
    for block in model.blocks:
        x_BCS = x_BCS + block.token_mixing.fc(x_BCS)
        x_BCS = x_BCS + block.channel_mixing.fc(x_BCS.permute(0, 2, 1)).permute(0, 2, 1)
    return model.head(x_BCS.mean(2))


@pytest.mark.parametrize("depth", [1, 3])
def test_article_variant_is_the_article(depth):
    config = variant("article", depth=depth)
    model, images = random_mixer(config), random_images(config)
    with torch.inference_mode():
        assert oracle.difference(model(images), article_by_hand(model, images)) < 1e-12


def affine_error(config: MixerConfig) -> float:
    """f(x+y) − f(x) − f(y) + f(0), which is zero for an affine f, relative to f(x+y)."""
    model = random_mixer(config)
    x, y = random_images(config, 1), random_images(config, 1)
    with torch.inference_mode():
        rest = model(x + y) - model(x) - model(y) + model(torch.zeros_like(x))
        return float(rest.abs().max() / model(x + y).abs().max())


@pytest.mark.parametrize("depth", [1, 3])
def test_article_is_affine_whatever_its_depth(depth):
    assert affine_error(variant("article", depth=depth)) < 1e-12


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": False}, {"token_mixer": "linear", "channel_mixer": "linear"}],
    ids=["standard", "gelu alone", "norm alone"],
)
def test_gelu_or_norm_makes_the_model_more_than_affine(changes):
    assert affine_error(changed(SMALL, **changes)) > 1e-3


def test_permuted_patches_and_pixels_are_undone_by_permuted_weights():
    """Stem kernel by pixel; token axis of W1, W2 and b2: the outputs do not change."""
    model, images = random_mixer(SMALL), random_images(SMALL)
    (down, across), side = SMALL.grid, SMALL.patch_hw[0]
    patches, pixels = torch.randperm(down * across), torch.randperm(side * side)

    x = images.unflatten(3, (across, side)).unflatten(2, (down, side))
    x = x.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)  # [B, I, patches, pixels]
    x = x[:, :, patches][:, :, :, pixels]
    x = x.unflatten(3, (side, side)).unflatten(2, (down, across)).permute(0, 1, 2, 4, 3, 5)
    shuffled = x.reshape(images.shape)

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if name == "stem.weight":
            state[name] = tensor.flatten(2)[:, :, pixels].reshape(tensor.shape)
        elif name.endswith("token_mixing.fc1.weight"):
            state[name] = tensor[:, patches]
        elif "token_mixing.fc2." in name:
            state[name] = tensor[patches]
    other = MlpMixer(SMALL).double().eval()
    other.load_state_dict(state)
    with torch.inference_mode():
        assert oracle.difference(other(shuffled), model(images)) < 1e-12
        assert oracle.difference(model(shuffled), model(images)) > 1e-3


def test_the_oracle_itself_on_a_case_computed_by_hand():
    """One patch, one channel, zero kernels: what is left is the bias of norm, then the head."""
    weights = {"stem.weight": np.full((1, 1, 2, 2), 2.0), "stem.bias": [1.0]}
    weights |= {"norm.weight": [3.0], "norm.bias": [4.0]}
    weights |= {"head.weight": [[5.0], [6.0]], "head.bias": [0.5, 0.25]}
    logits = oracle.mixer(np.ones((1, 1, 2, 2)), weights, patch=(2, 2), depth=0, gelu="erf")
    assert logits.tolist() == [[20.5, 24.25]]
    assert oracle.embed(np.ones((1, 1, 2, 2)), np.full((1, 1, 2, 2), 2.0), 1.0, (2, 2)) == 9
