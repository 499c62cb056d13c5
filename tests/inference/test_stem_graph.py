"""The patch embedding in 8 bits, against a float model whose matrix alone was rounded."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixerkit.inference.eight_bits import RIGHT
from mixerkit.inference.exported import normalised
from mixerkit.inference.mixer_graph import EightBits, mixer_graph
from mixerkit.inference.runtimes import RUNTIMES, Runtime, open_graph
from mixerkit.inference.stem_graph import PIXELS, STEM, can_be_rounded, of_pixels
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from tests.inference.test_eight_bits import round_stem
from tests.inference.test_mixer_graph import CONFIGS, SMALL, moved, weights_of

COLOURS = replace(SMALL, in_channels=3, patch_size=(4, 2), image_size=(16, 12))
EACH = Preprocess(COLOURS.image_size, mean=(0.48, 0.45, 0.4), std=(0.23, 0.22, 0.25))
CASES = {
    "grey": (SMALL, Preprocess(SMALL.image_size, channels=1)),
    "the pixels as they are": (SMALL, Preprocess(SMALL.image_size, 1, mean=(0.0,), std=(1.0,))),
    "every channel its own": (COLOURS, EACH),
    "tiles": (CONFIGS["tiles"], Preprocess(32)),
    "positions": (CONFIGS["tiles and attention"], Preprocess(32, channels=1)),
}


def rounded_by_hand(model: MlpMixer, preprocess: Preprocess) -> MlpMixer:
    """127 even steps for the weights that a patch's pixels are multiplied by."""
    twin = deepcopy(model)
    round_stem(twin.stem, preprocess)
    return twin


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_only_the_matrix_is_rounded(case: str, runtime: Runtime) -> None:
    """Of the model's input as of 8-bit pixels: every pixel is exact."""
    config, preprocess = CASES[case]
    model = moved(config)
    pixels = np.random.default_rng(0).integers(
        0, 256, (3, config.in_channels, *config.image_hw), np.uint8
    )
    pixels[0, :, :2], pixels[1, :, :2] = 0, 255
    images = normalised(pixels, preprocess)
    twin = rounded_by_hand(model, preprocess)
    with torch.inference_mode():
        wanted, exact = (one(torch.from_numpy(images)).numpy() for one in (twin, model))
    eight_bits = EightBits({STEM: PIXELS}, pixels=preprocess)
    for form, given in (
        (RIGHT, images),
        (replace(RIGHT, pixels=True), np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))),
    ):
        graph = mixer_graph(config, weights_of(model), preprocess, form, eight_bits)
        found = open_graph(graph.SerializeToString(), runtime, "", threads=1).run(given)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        assert np.abs(found - exact).max() > 1e-3 * np.abs(exact).max()


def test_all_256_pixels_are_steps_and_come_out_as_they_are() -> None:
    """By the arithmetic that the graph stands for, with a matrix that picks one pixel."""
    preprocess = Preprocess(1, channels=1, mean=(0.3,), std=(0.7,))
    weights = {"stem.weight": np.ones((1, 1, 1, 1)), "stem.bias": np.zeros(1)}
    changed = of_pixels(weights, preprocess)
    steps = np.arange(256)
    values = (steps - PIXELS.zero_point) * PIXELS.scale
    found = values * changed["stem.weight"].item() + changed["stem.bias"].item()
    np.testing.assert_allclose(found, (steps / 255 - 0.3) / 0.7, atol=1e-12)


def test_patches_over_the_edge_stay_in_float() -> None:
    assert not can_be_rounded(CONFIGS["padded"])
    assert all(can_be_rounded(config) for config, _ in CASES.values())
