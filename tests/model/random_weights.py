"""Models with every parameter random: a fresh head of zeros would hide all errors."""

import torch
from torch import nn

from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig

SMALL = MixerConfig(
    image_size=(8, 12),
    patch_size=4,
    in_channels=2,
    width=10,
    depth=2,
    token_width=7,
    channel_width=9,
    num_classes=5,
)


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Kernels of about unit gain; biases and norm scales far from their initial values."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return model


def random_mixer(config: MixerConfig, dtype: torch.dtype = torch.float64) -> MlpMixer:
    """A randomised model in evaluation mode."""
    with torch.device("meta"):  # no time spent on numbers that are replaced at once
        model = MlpMixer(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    randomise(model)
    for buffer in model.buffers():  # of the token mixer random: rows that are means
        buffer.copy_(torch.rand_like(buffer).softmax(dim=1))
    return model


def random_images(config: MixerConfig, batch: int = 2, dtype=torch.float64) -> torch.Tensor:
    """Images [batch, I, H, W] of the size that `config` expects."""
    return torch.randn(batch, config.in_channels, *config.image_hw, dtype=dtype)
