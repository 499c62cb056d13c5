"""How the model is built, initialised, called and trained."""

import math

import pytest
import torch
from torch import nn

from mixerkit.errors import UserError
from mixerkit.model.mixer import DropPath, MixerBlock, MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from tests.model.random_weights import SMALL, random_images, random_mixer


def small(**changes) -> MixerConfig:
    return MixerConfig(**(vars(SMALL) | changes))


# Initialisation

TRUNCATED = 0.8796256610342398  # standard deviation of a unit normal cut off at ±2


@pytest.mark.parametrize("label", ["S/16", "N/4"])
def test_kernels_are_lecun_normal_cut_off_at_two_deviations(label):
    for name, kernel in MlpMixer(variant(label)).named_parameters():
        if kernel.ndim < 2 or name.startswith("head"):
            continue
        fan_in = kernel[0].numel()
        expected = math.sqrt(1 / fan_in)
        noise = 5 / math.sqrt(2 * kernel.numel())
        assert kernel.std().item() == pytest.approx(expected, rel=noise), name
        assert abs(kernel.mean().item()) < 5 * expected / math.sqrt(kernel.numel()), name
        cut = 2 * expected / TRUNCATED
        assert 0.95 * cut < kernel.abs().max().item() <= cut * (1 + 1e-6), name


def test_biases_norms_and_head_start_as_published():
    model = MlpMixer(small(head_bias=-6.9))
    for name, parameter in model.named_parameters():
        if name == "head.bias":
            assert torch.equal(parameter, torch.full_like(parameter, -6.9))
        elif name == "head.weight":
            assert not parameter.any()
        elif parameter.ndim == 1:
            expected = 1.0 if name.endswith("norm.weight") else 0.0
            assert torch.equal(parameter, torch.full_like(parameter, expected)), name
    assert torch.equal(model(random_images(SMALL).float()), torch.full((2, 5), -6.9))


# Stochastic depth and dropout


def test_paper_rates_grow_with_depth_and_timm_rates_do_not():
    paper = MlpMixer(small(depth=5, drop_path=0.2))
    timm = MlpMixer(small(depth=5, drop_path=0.2, drop_path_kind="timm"))
    assert [block.token_drop.rate for block in paper.blocks] == pytest.approx(
        [0, 0.05, 0.1, 0.15, 0.2]
    )
    assert [block.token_drop.rate for block in timm.blocks] == [0.2] * 5
    assert MlpMixer(small(depth=1, drop_path=0.2)).blocks[0].token_drop.rate == 0  # the first


@pytest.mark.parametrize("kind, kept_value", [("paper", 1.0), ("timm", 1 / 0.7)])
def test_stochastic_depth_leaves_out_whole_samples(kind, kept_value):
    block = MixerBlock(small(depth=2, drop_path=0.3, drop_path_kind=kind), 1)
    drop = block.token_drop.train()
    found = drop(torch.ones(20_000, 3, 2)).flatten(1)
    assert (found == found[:, :1]).all()  # one decision for a sample
    values = found[:, 0]
    assert ((values == 0) | (values == torch.tensor(kept_value))).all()
    assert (values == 0).float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert torch.equal(drop.eval()(torch.ones(4, 3, 2)), torch.ones(4, 3, 2))


class Constant(nn.Module):
    """A branch that adds `value` everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, self.value)


def test_both_branches_draw_on_their_own():
    block = MixerBlock(small(depth=2, drop_path=0.5), 1).train()
    block.token_mixing, block.channel_mixing = Constant(1.0), Constant(2.0)
    found = block(torch.zeros(20_000, SMALL.num_patches, SMALL.width))[:, 0, 0]
    for outcome in (0.0, 1.0, 2.0, 3.0):  # none, tokens, channels, both
        assert (found == outcome).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    model = random_mixer(small(dropout=0.5, width=64))
    images = random_images(SMALL)
    assert torch.equal(model(images), model(images))
    for mixing in (model.blocks[0].token_mixing, model.blocks[0].channel_mixing):
        x = torch.randn(1, SMALL.num_patches, 64, dtype=torch.float64)
        expected = mixing.eval()(x)
        draws = torch.stack([mixing.train()(x) for _ in range(4000)])
        assert (draws == 0).double().mean().item() == pytest.approx(0.5, abs=0.01)
        assert (draws.mean(0) - expected).abs().max() < 8 * draws.std() / math.sqrt(4000) + 0.2


def test_no_rate_means_no_draw():
    model, images, state = random_mixer(SMALL).train(), random_images(SMALL), torch.get_rng_state()
    model(images)
    assert torch.equal(torch.get_rng_state(), state)


# Images that the patch does not divide, other channels, no head


def test_padding_is_flax_same_by_hand():
    padded = random_mixer(small(image_size=(27, 30), patch_size=8, pad=True))
    plain = MlpMixer(small(image_size=32, patch_size=8)).double().eval()
    plain.load_state_dict(padded.state_dict())
    image = torch.randn(1, 2, 27, 30, dtype=torch.float64)
    by_hand = torch.zeros(1, 2, 32, 32, dtype=torch.float64)
    by_hand[:, :, 2:29, 1:31] = image  # 5 rows miss: 2 above, 3 below; 2 columns: 1 and 1
    torch.testing.assert_close(padded(image), plain(by_hand), rtol=0, atol=1e-12)


def test_an_indivisible_image_is_an_error_that_names_the_nearest_sizes():
    with pytest.raises(UserError, match=r"height of 27 px .* 24 and 32 .*pad=True"):
        small(image_size=(27, 32), patch_size=8)


@pytest.mark.parametrize("shape", [(2, 8, 12), (1, 3, 8, 12), (1, 2, 12, 8), (1, 2, 8, 16)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(UserError, match=r"Expected images \[batch, 2, 8, 12\], found"):
        MlpMixer(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_any_number_of_input_channels(channels):
    config = small(in_channels=channels)
    model, images = random_mixer(config), random_images(config).requires_grad_()
    model(images).sum().backward()
    assert (images.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_without_classes_the_result_is_what_the_head_would_see():
    model = random_mixer(SMALL)
    headless = MlpMixer(small(num_classes=0)).double().eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    headless.load_state_dict(state)
    images = random_images(SMALL)
    features = headless(images)
    assert features.shape == (2, SMALL.width)
    assert torch.equal(features, model.features(images))
    assert torch.equal(model.head(features), model(images))
    torch.testing.assert_close(model.tokens(images).mean(1), features)


# Stages, recomputation, compilation, names


def test_intermediates_are_named_and_end_in_the_logits():
    model, images = random_mixer(SMALL), random_images(SMALL)
    stages = model.intermediates(images)
    blocks = [f"blocks.{i}.{part}_mixing" for i in (0, 1) for part in ("token", "channel")]
    assert list(stages) == ["stem", *blocks, "norm", "features", "logits"]
    assert torch.equal(stages["logits"], model(images))
    assert torch.equal(
        stages["blocks.1.channel_mixing"], model.blocks[1](model.blocks[0](model.stem(images)))
    )
    assert "logits" not in MlpMixer(small(num_classes=0)).intermediates(images.float())


def test_activation_checkpointing_changes_memory_and_not_gradients():
    config = small(drop_path=0.3, dropout=0.2)
    gradients, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(1)
        model = random_mixer(config).train()
        model.activation_checkpointing = recompute
        sizes: list[int] = []

        def note(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(random_images(SMALL)).square().sum()
        kept.append(sum(sizes))
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
    assert kept[1] < kept[0] / 2


@pytest.mark.slow
def test_compiles_as_one_graph_and_equals_eager():
    model, images = random_mixer(SMALL), random_images(SMALL)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-10, atol=1e-10)


PAIR = ("weight", "bias")
BLOCK = ["token_norm", "token_mixing.fc1", "token_mixing.fc2"]
BLOCK += ["channel_norm", "channel_mixing.fc1", "channel_mixing.fc2"]


def test_tensor_names_are_the_documented_ones(repository):
    modules = ["stem", *(f"blocks.{i}.{name}" for i in (0, 1) for name in BLOCK), "norm", "head"]
    expected = [f"{module}.{kind}" for module in modules for kind in PAIR]
    assert list(MlpMixer(SMALL).state_dict()) == expected
    documented = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in ("stem", *(f"blocks.{{i}}.{name}" for name in BLOCK), "norm", "head"):
        assert f"`{name}`" in documented, name


def test_the_tiles_of_an_image_are_left_out_together():
    kept = DropPath(0.5, False, tiles=4).train()(torch.ones(64 * 4, 3, 2)).reshape(64, 4, 6)
    assert (kept == kept[:, :1, :1]).all() and 0.2 < kept.mean() < 0.8


def test_an_empty_batch_gives_empty_logits():
    for tiles in (1, 2):
        model = MlpMixer(variant("N/7", num_classes=5, tiles=tiles))
        assert model(torch.zeros(0, 3, 28, 28)).shape == (0, 5)
