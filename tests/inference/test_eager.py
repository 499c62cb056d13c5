"""A PyTorch model as what runs normalised images."""

import numpy as np
import torch

from mixerkit.inference.eager import eager_run
from mixerkit.inference.exported import normalised
from tests.inference.small_model import PREPROCESS, made, pixels


def test_bfloat16_is_near_and_not_the_same() -> None:
    """As PyTorch's autocast computes it; the model stays in float32."""
    model, images = made(), normalised(pixels(4), PREPROCESS)
    whole, half = (eager_run(model, 0, kind)(images) for kind in ("float32", "bfloat16"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = model(torch.from_numpy(images)).float().numpy()
    assert np.array_equal(half, wanted) and half.dtype == np.float32
    assert 0 < np.abs(half - whole).max() < 0.05 * np.abs(whole).max()
    assert model.head.weight.dtype == torch.float32
