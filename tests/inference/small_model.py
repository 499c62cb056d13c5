"""A small model whose head is not zero, and images for it, as the tests of 8 bits need them."""

import numpy as np
import torch
from torch import nn

from mixerkit.inference.eight_bits import Calibration
from mixerkit.inference.export import weights_of
from mixerkit.inference.exported import normalised
from mixerkit.inference.runtimes import Runtime
from mixerkit.inference.samples import Samples, parted
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

CONFIG = MixerConfig(
    image_size=24,
    patch_size=4,
    in_channels=1,
    width=32,
    depth=2,
    token_width=24,
    channel_width=64,
    num_classes=5,
)
PREPROCESS = Preprocess(image_size=24, channels=1, class_names=tuple("abcde"))
PRODUCTS = [
    f"blocks.{block}.{part}.{layer}"
    for block in (0, 1)
    for part in ("token_mixing", "channel_mixing")
    for layer in ("fc1", "fc2")
]
PRODUCTS = sorted([*PRODUCTS, "stem"])


def made(config: MixerConfig = CONFIG) -> MlpMixer:
    torch.manual_seed(0)
    model = MlpMixer(config).eval()
    nn.init.normal_(model.head.weight)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    model.preprocess = PREPROCESS
    if config == CONFIG:  # every class is the likeliest of some images
        with torch.inference_mode():
            mean_K = model(torch.from_numpy(normalised(pixels(), PREPROCESS))).mean(dim=0)
        model.head.bias.data -= mean_K
    return model


def pixels(count: int = 64) -> np.ndarray:
    """Soft blobs: images whose values are not all alike."""
    generator = np.random.default_rng(0)
    coarse = generator.random((count, 1, 6, 6)).repeat(4, axis=2).repeat(4, axis=3)
    return (255 * coarse * generator.random((count, 1, 24, 24))).astype(np.uint8)


def calibration(model: MlpMixer, runtime: Runtime = "onnxruntime") -> Calibration:
    prepared = model.preprocess
    assert prepared
    return Calibration(model.config, weights_of(model), prepared, pixels(), runtime, threads=1)


def samples(count: int = 160) -> Samples:
    return parted(pixels(count))
