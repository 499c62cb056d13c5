"""timm's Mixer at our shapes: same logits with our weights, and a refusal where it cannot."""

import builtins

import pytest
import torch

from mixerkit.benchmark.peers import copy_to_timm, timm_mixer
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from tests.model.random_weights import random_images, random_mixer

RECTANGLE = MixerConfig(
    image_size=(8, 12),
    patch_size=(4, 2),
    in_channels=2,
    width=24,
    depth=2,
    token_width=7,
    channel_width=31,
    num_classes=5,
    norm_eps=1e-3,
)
CONFIGS = {
    "N/7": variant("N/7", in_channels=1, num_classes=10),
    "rectangle, tanh": RECTANGLE,
    "features": variant("N/7", in_channels=1, num_classes=0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_equal_timms_with_copied_weights(name):
    model = random_mixer(CONFIGS[name], torch.float32)
    peer = copy_to_timm(model)
    images = random_images(CONFIGS[name], batch=3, dtype=torch.float32)
    found, expected = model(images), peer(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    grad = [
        torch.autograd.grad(out.square().sum(), net.stem.parameters())[0]
        for out, net in ((found, model), (expected, peer))
    ]
    assert (grad[0].flatten() - grad[1].flatten()).abs().max() <= 1e-4 * grad[1].abs().max()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in peer.parameters())


def test_awkward_widths_are_exact():
    for width in range(3, 60):
        for token_width in (1, 7, width - 1, width):
            config = MixerConfig(8, 4, 1, width, 1, token_width, 2 * width + 1, 0)
            block = timm_mixer(config).blocks[0]
            assert block.mlp_tokens.fc1.out_features == token_width
            assert block.mlp_channels.fc1.out_features == 2 * width + 1


def test_a_peer_has_weights_and_mode_of_its_own():
    model = MlpMixer(CONFIGS["N/7"]).train()
    peer = copy_to_timm(model)
    assert peer.training and not copy_to_timm(model.eval()).training
    with torch.no_grad():
        model.stem.weight.zero_()
    assert peer.stem.proj.weight.abs().max() > 0


def test_rates_are_handed_on():
    config = MixerConfig(8, 4, 1, 8, 2, 4, 8, 3, drop_path=0.25, drop_path_kind="timm", dropout=0.5)
    block = timm_mixer(config).blocks[0]
    assert (block.drop_path.drop_prob, block.mlp_tokens.drop1.p) == (0.25, 0.5)


def test_a_head_bias_is_copied_with_the_weights():
    model = MlpMixer(MixerConfig(**(vars(RECTANGLE) | {"head_bias": -6.9})))
    assert torch.equal(copy_to_timm(model).head.bias, torch.full((5,), -6.9))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"token_mixer": "linear"}, "token_mixer='linear'"),
        ({"norm": False}, "norm=False"),
        ({"drop_path": 0.1}, "drop_path_kind='paper'"),
        ({"head_bias": -6.9}, "head_bias=-6.9"),
        ({"pad": True}, "pad=True"),
    ],
)
def test_what_timm_has_not_is_refused_by_name(change, named):
    with pytest.raises(UserError, match=named):
        timm_mixer(MixerConfig(**(vars(RECTANGLE) | change)))


def test_a_missing_timm_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_timm(name, *rest):
        if name.startswith("timm"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(UserError, match="pip install timm"):
        timm_mixer(RECTANGLE)
