"""Who may influence whom, proved by gradients that must be exactly zero."""

import pytest
import torch
from torch.autograd.functional import jacobian

from mixerkit.model.mixer import MixerBlock
from mixerkit.spec.mixer import MixerConfig
from tests.model.random_weights import SMALL, random_images, random_mixer, randomise

S, C = SMALL.num_patches, SMALL.width


def block(kind: str) -> MixerBlock:
    config = MixerConfig(**(vars(SMALL) | {"token_mixer": kind, "channel_mixer": kind}))
    return randomise(MixerBlock(config, 0).double())


def blocks_of(module: torch.nn.Module) -> torch.Tensor:
    """d out[s, c] / d in[t, d] as [S, C, S, C]."""
    x_1SC = torch.randn(1, S, C, dtype=torch.float64)
    return jacobian(module, x_1SC)[0, :, :, 0]


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_token_mixing_never_mixes_channels(kind):
    by_channel = blocks_of(block(kind).token_mixing).permute(1, 3, 0, 2)
    same = torch.eye(C, dtype=torch.bool)
    assert (by_channel[~same] == 0).all()
    assert (by_channel[same] != 0).all()  # every token reaches every token


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_channel_mixing_never_mixes_tokens(kind):
    by_token = blocks_of(block(kind).channel_mixing).permute(0, 2, 1, 3)
    same = torch.eye(S, dtype=torch.bool)
    assert (by_token[~same] == 0).all()
    assert (by_token[same] != 0).all()


def test_token_mixing_is_the_same_for_all_channels_and_channel_mixing_for_all_tokens():
    mixer, x = block("mlp"), torch.randn(2, S, C, dtype=torch.float64)
    channels, tokens = torch.randperm(C), torch.randperm(S)
    torch.testing.assert_close(
        mixer.token_mixing(x[:, :, channels]), mixer.token_mixing(x)[:, :, channels]
    )
    torch.testing.assert_close(
        mixer.channel_mixing(x[:, tokens]), mixer.channel_mixing(x)[:, tokens]
    )


def test_images_of_a_batch_do_not_see_each_other():
    model, images = random_mixer(SMALL), random_images(SMALL, 3).requires_grad_()
    model(images)[1].sum().backward()
    assert (images.grad[[0, 2]] == 0).all()
    assert (images.grad[1] != 0).any()


@pytest.mark.parametrize("patch", [(4, 4), (2, 6), (8, 3)])
def test_a_pixel_influences_only_its_token_and_tokens_are_in_raster_order(patch):
    config = MixerConfig(**(vars(SMALL) | {"patch_size": patch}))
    stem = random_mixer(config).stem
    image = torch.zeros(1, 2, 8, 12, dtype=torch.float64)
    reached = (jacobian(stem, image)[0, :, :, 0] != 0).any(dim=1)  # [S, I, H, W]
    across = 12 // patch[1]
    for row in range(8):
        for column in range(12):
            token = (row // patch[0]) * across + column // patch[1]
            for channel in range(2):
                assert reached[:, channel, row, column].nonzero().flatten().tolist() == [token]
