"""Closed forms against the published integers, real tensors and what autograd really keeps."""

import pytest
import torch

from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.paper import VARIANTS
from tests.model.random_weights import SMALL

ARTICLE_PARAMETERS = 1_207_996


def real_parameters(config: MixerConfig) -> int:
    with torch.device("meta"):
        model = MlpMixer(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.label)
@pytest.mark.parametrize("classes", [1000, 0, 21843])
def test_parameters_of_every_published_variant(row, classes):
    published = {
        1000: row.parameters,
        0: row.parameters_without_head,
        21843: row.parameters_21843_classes,
    }[classes]
    config = variant(row.label, num_classes=classes)
    assert cost(config).parameters == real_parameters(config)
    if published is not None:
        assert cost(config).parameters == published


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.label)
def test_multiply_adds_of_every_published_variant(row):
    assert cost(variant(row.label)).macs == pytest.approx(row.gmacs * 1e9, rel=1e-3)


def test_parameters_of_the_article():
    assert cost(variant("article")).parameters == ARTICLE_PARAMETERS
    assert real_parameters(variant("article")) == ARTICLE_PARAMETERS


CONFIGS = {
    "small": SMALL,
    "features": MixerConfig(**(vars(SMALL) | {"num_classes": 0})),
    "linear": MixerConfig(
        **(vars(SMALL) | {"token_mixer": "linear", "channel_mixer": "linear", "norm": False})
    ),
    "padded": MixerConfig(**(vars(SMALL) | {"image_size": (7, 11), "pad": True})),
    "N/4": variant("N/4", in_channels=1, num_classes=10),
    "S/32": variant("S/32", depth=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_add_up_and_follow_the_forward_pass(name):
    config = CONFIGS[name]
    assert cost(config).parameters == real_parameters(config)
    with torch.no_grad():
        stages = MlpMixer(config).intermediates(torch.zeros(1, *image_shape(config)))
    shapes = [part.output for part in cost(config).parts if "norm before" not in part.name]
    assert shapes == [tuple(stage.shape[1:]) for stage in stages.values()]


def image_shape(config: MixerConfig) -> tuple[int, int, int]:
    return (config.in_channels, *config.image_hw)


def kept_for_backward(model: MlpMixer, images: torch.Tensor) -> int:
    """Bytes of every distinct storage that autograd saves, the weights' own left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage  # held, so that its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(images)
        assert output.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_activation_bytes_are_what_autograd_keeps(name, batch):
    config = CONFIGS[name]
    model, images = MlpMixer(config), torch.randn(batch, *image_shape(config))
    assert kept_for_backward(model, images) == cost(config).activation_bytes(batch)


def test_activation_bytes_follow_the_precision():
    model, images = MlpMixer(SMALL).double(), torch.randn(2, *image_shape(SMALL)).double()
    assert kept_for_backward(model, images) == cost(SMALL).activation_bytes(2, bytes_each=8)


def multiply_adds(config: MixerConfig) -> int:
    """What PyTorch itself counts in the products of one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model, images = MlpMixer(config), torch.empty(1, *image_shape(config))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", CONFIGS)
def test_multiply_adds_equal_pytorchs_own_count(name):
    assert cost(CONFIGS[name]).macs == multiply_adds(CONFIGS[name])


def test_bfloat16_keeps_no_copy_of_the_token_weights_for_each_image():
    """Cast after it is expanded over the batch, the shared weight would be stored per image."""
    config = MixerConfig(
        image_size=32, patch_size=2, width=4, depth=2, token_width=64, channel_width=4
    )
    model, images = MlpMixer(config), torch.randn(16, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        kept = kept_for_backward(model, images)
    assert kept < cost(config).activation_bytes(16)
