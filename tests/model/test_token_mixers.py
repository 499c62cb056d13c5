"""Every token mixer: its definition, its counts, who can influence whom, and that it learns."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load_weights, save_model
from mixerkit.errors import UserError
from mixerkit.insight.footprint import footprint
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MixerBlock, MlpMixer
from mixerkit.model.surgery import resample
from mixerkit.model.token_mixers import TOKEN_MIXER_CLASSES
from mixerkit.spec.mixer import MixerConfig, TokenMixerName
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.token_mixers import IN_GROUPS, KERNEL, POOL, TOKEN_MIXERS
from mixerkit.training.muon import Muon
from tests.model.random_weights import random_images, random_mixer, randomise
from tests.model.test_cost import image_shape, kept_for_backward, multiply_adds, real_parameters
from tests.model.token_oracles import ORACLES
from tests.oracle import difference

GRID = (3, 5)


def config_of(mixer: str, **changes: object) -> MixerConfig:
    return MixerConfig(
        **dict(
            image_size=(12, 20),
            patch_size=4,
            in_channels=2,
            width=12,
            depth=2,
            token_width=7,
            channel_width=9,
            num_classes=5,
            gelu="erf",
            token_mixer=mixer,
            token_groups=3 if mixer in IN_GROUPS else 1,
        )
        | changes
    )


def test_every_table_knows_every_mixer() -> None:
    names = set(get_args(TokenMixerName))
    assert names == set(TOKEN_MIXERS) == set(TOKEN_MIXER_CLASSES) == set(ORACLES)


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
@pytest.mark.parametrize("tiles", [1, (1, 5)])
def test_a_mixer_is_its_definition(mixer: str, tiles: int | tuple[int, int]) -> None:
    config = config_of(mixer, tiles=tiles)
    mixing = randomise(MixerBlock(config, 0).double()).token_mixing.eval()
    weights = {name: tensor.numpy() for name, tensor in mixing.state_dict().items()}
    x_BSC = torch.randn(2, config.tile_patches, config.width, dtype=torch.float64)
    with torch.no_grad():
        found = mixing(x_BSC.clone())
    wanted = [
        ORACLES[mixer](x.numpy(), weights, config.tile_grid, config.token_groups) for x in x_BSC
    ]
    assert difference(found, wanted) < 1e-12


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_parameters_and_multiply_adds(mixer: str) -> None:
    config = config_of(mixer)
    assert cost(config).parameters == real_parameters(config)
    transforms = {"fourier": 1, "global-filter": 2}.get(mixer, 0)  # PyTorch counts none
    size, length = 15 * 12, 15 * 12 if mixer == "fourier" else 15
    by_transforms = 2 * transforms * round(1.25 * size * np.log2(length))
    assert cost(config).macs - by_transforms == multiply_adds(config)


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_activation_bytes(mixer: str) -> None:
    """Up to matrices that are computed from few numbers, which are kept once and not per image."""
    config, batch = config_of(mixer), 64
    model, images = MlpMixer(config), torch.randn(batch, *image_shape(config))
    kept = kept_for_backward(model, images)
    once = 4 * config.depth * config.tile_patches**2 if mixer in ("circulant", "random") else 0
    assert kept - once == cost(config).activation_bytes(batch)


def reachable(mixer: str) -> np.ndarray:
    """[S, S]: whether token t may influence token s, from what is said of the mixer."""
    places = [(i, j) for i in range(GRID[0]) for j in range(GRID[1])]
    if TOKEN_MIXERS[mixer].reach == "all":
        return np.ones((15, 15), bool)
    if TOKEN_MIXERS[mixer].reach == "none":
        return np.eye(15, dtype=bool)
    if mixer == "shift":
        moves = [(-1, 0), (1, 0), (0, -1), (0, 1)]
        outside = {s for s, (i, j) in enumerate(places) if i in (0, 2) or j in (0, 4)}
        found = np.array([[(a - i, b - j) in moves for a, b in places] for i, j in places])
        return found | np.diag([s in outside for s in range(15)])  # the edge keeps its own
    far = {"pool": POOL, "depthwise": KERNEL}[mixer] // 2
    return np.array([[max(abs(a - i), abs(b - j)) <= far for a, b in places] for i, j in places])


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_who_can_influence_whom(mixer: str) -> None:
    config = config_of(mixer)
    mixing = randomise(MixerBlock(config, 0).double()).token_mixing
    found = footprint(mixing, config)
    np.testing.assert_array_equal(found > 0, reachable(mixer))


@pytest.mark.parametrize("mixer", [name for name in TOKEN_MIXERS if name != "attention"])
def test_which_mix_channels(mixer: str) -> None:
    config = config_of(mixer)
    mixing = randomise(MixerBlock(config, 0).double()).token_mixing
    x = torch.randn(1, 15, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(mixing, x)[0, :, :, 0]  # [S, C, S, C]
    across = jacobian.permute(1, 3, 0, 2)[~torch.eye(12, dtype=torch.bool)]
    assert bool((across != 0).any()) == TOKEN_MIXERS[mixer].mixes_channels


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_a_fixed_mixer_learns_nothing_and_all_models_learn(mixer: str) -> None:
    config = config_of(mixer)
    model = MlpMixer(config)
    mixing = list(model.blocks[0].token_mixing.parameters())
    assert bool(mixing) != TOKEN_MIXERS[mixer].fixed
    images, labels = random_images(config, 20).float(), torch.arange(20) % 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_bfloat16_and_inference_give_nearly_the_same(mixer: str) -> None:
    model = random_mixer(config_of(mixer), torch.float32)
    images = random_images(model.config).float()
    wanted = model(images)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images).float()
    assert (found - wanted).norm() < 0.05 * wanted.norm()


def test_a_circulant_mixer_moves_with_the_image() -> None:
    config = config_of("circulant")
    mixing = randomise(MixerBlock(config, 0).double()).token_mixing
    x_1SC = torch.randn(1, 15, 12, dtype=torch.float64)

    def moved(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, GRID).roll((1, 2), (1, 2)).flatten(1, 2)

    torch.testing.assert_close(mixing(moved(x_1SC)), moved(mixing(x_1SC)))


def test_grouped_with_one_group_is_the_papers_mlp() -> None:
    one = MixerBlock(config_of("grouped", token_groups=1), 0).token_mixing.double()
    paper = MixerBlock(config_of("mlp"), 0).token_mixing.double()
    randomise(paper)
    one.load_state_dict(
        {
            name: tensor.unsqueeze(0) if tensor.ndim == 2 else tensor
            for name, tensor in paper.state_dict().items()
        }
    )
    x_BSC = torch.randn(2, 15, 12, dtype=torch.float64)
    torch.testing.assert_close(one(x_BSC), paper(x_BSC))


def test_a_gate_starts_open() -> None:
    """At first a gated mixer is a channel MLP: almost nothing goes between tokens."""
    config = config_of("gated")
    model = MlpMixer(config).double()
    found = footprint(model.blocks[0].token_mixing, config)
    assert found[~np.eye(15, dtype=bool)].max() < 0.1 * np.diag(found).min()


def test_attention_is_timms_vision_transformer() -> None:
    timm = pytest.importorskip("timm")
    config = replace(
        config_of("attention"), image_size=16, in_channels=3, width=24, channel_width=48
    )
    model = random_mixer(config)
    peer = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2,
        class_token=False, global_pool="avg", fc_norm=False,
    ).double().eval()  # fmt: skip
    names = {
        "stem.weight": "patch_embed.proj.weight",
        "stem.bias": "patch_embed.proj.bias",
        "stem.positions": "pos_embed",
        "token_norm": "norm1",
        "channel_norm": "norm2",
        "token_mixing": "attn",
        "channel_mixing": "mlp",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor.unsqueeze(0) if name == "pos_embed" else tensor
    peer.load_state_dict(state, strict=True)
    images = random_images(config)
    with torch.no_grad():
        assert difference(model(images), peer(images)) < 1e-12


@pytest.mark.parametrize("mixer", ["mlp", "pool"])
def test_groups_are_for_those_that_have_them(mixer: str) -> None:
    with pytest.raises(UserError, match=r"token_groups is for .*attention.*found 2 with"):
        config_of(mixer, token_groups=2)
    with pytest.raises(UserError, match="width 12 must be a multiple of token_groups, found 5"):
        config_of("attention", token_groups=5)


def test_the_footprint_of_a_matrix_that_is_kept_in_float32() -> None:
    config = config_of("random")
    assert (footprint(MixerBlock(config, 0).token_mixing, config) > 0).all()


def test_muon_updates_each_matrix_of_a_stack_on_its_own() -> None:
    one = torch.nn.Parameter(torch.randn(3, 7, 5))
    others = [torch.nn.Parameter(matrix.clone()) for matrix in one.detach()]
    stack, apart = Muon([one], lr=0.1), Muon(others, lr=0.1)
    for _ in range(3):
        one.grad = torch.randn_like(one)
        for other, gradient in zip(others, one.grad, strict=True):
            other.grad = gradient.clone()
        stack.step()
        apart.step()
    torch.testing.assert_close(one.detach(), torch.stack([other.detach() for other in others]))


def test_weights_for_other_heads_are_refused(tmp_path: Path) -> None:
    """Their shapes are the same."""
    model = MlpMixer(config_of("attention"))
    save_model(tmp_path / "model", model, Preprocess(image_size=(12, 20), channels=2), {})
    with pytest.raises(UserError, match=r"token_groups: the model has 2, the weights .* 3"):
        load_weights(MlpMixer(config_of("attention", token_groups=2)), tmp_path / "model")


@pytest.mark.parametrize("mixer", ["linear", "attention", "gated", "pool", "identity"])
def test_weights_go_to_another_image_size(mixer: str) -> None:
    """To a grid twice as fine by resampling: nearly the same of a smooth image."""
    config = config_of(mixer)
    model = random_mixer(config)
    larger, tensors = resample(config, dict(model.state_dict()), (24, 40), "bilinear")
    other = MlpMixer(larger).double().eval()
    other.load_state_dict(tensors)
    assert other(random_images(larger)).shape == (2, 5)


@pytest.mark.parametrize("mixer", ["random", "circulant", "global-filter", "untied", "grouped"])
def test_weights_that_cannot_be_moved_say_so(mixer: str) -> None:
    model = random_mixer(config_of(mixer))
    with pytest.raises(UserError, match=rf"token mixer {mixer} cannot be moved"):
        resample(model.config, dict(model.state_dict()), (24, 40))
