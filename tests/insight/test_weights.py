"""Weight pictures: planted filters come out in the order that the paper's figures have."""

import numpy as np
import pytest
import torch

from mixerkit.insight.weights import (
    Pictures,
    mean_frequency,
    pair_opposites,
    patch_filters,
    spaced,
    token_units,
)
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant


def wave(cycles: float, height: int = 8, width: int = 8, phase: float = 0.0) -> np.ndarray:
    """A sinusoid across a picture."""
    x = np.arange(width) / width
    return np.tile(np.cos(2 * np.pi * (cycles * x + phase)), (height, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_come_out_from_low_to_high_frequency(channels: int) -> None:
    model = MlpMixer(variant("N/7", patch_size=14, in_channels=channels, width=6, num_classes=2))
    cycles = [5, 0, 3, 6, 1, 2]
    with torch.no_grad():
        for i, count in enumerate(cycles):
            strength = 10.0 ** (i - 3)  # must not matter
            model.stem.weight[i] = torch.from_numpy(strength * wave(count, 14, 14))
    found = patch_filters(model)
    assert [cycles[i] for i in found.order] == [0, 1, 2, 3, 5, 6]
    shape = (6, 14, 14) if channels == 1 else (6, 14, 14, 3)
    assert found.values.shape == shape


def test_frequency_is_in_cycles_per_pixel() -> None:
    waves = np.stack([wave(0), wave(1), wave(4), wave(2).T])
    assert mean_frequency(waves) == pytest.approx([0, 1 / 8, 1 / 2, 2 / 8], abs=1e-12)


def test_frequency_of_rectangles_and_of_nothing() -> None:
    assert mean_frequency(wave(3, 4, 12)[None]) == pytest.approx([0.25])
    assert mean_frequency(np.zeros((1, 4, 4)))[0] == np.inf


def test_each_filter_has_its_own_symmetric_scale() -> None:
    model = MlpMixer(variant("N/7", in_channels=1, num_classes=2))
    with torch.no_grad():
        model.stem.weight[5] = 0
    found = patch_filters(model)
    largest = np.abs(found.values).max(axis=(1, 2))
    assert found.order[-1] == 5
    assert largest[-1] == 0
    assert largest[:-1] == pytest.approx(1)
    raw = model.stem.weight.detach().numpy()[found.order, 0]
    assert np.array_equal(np.sign(found.values), np.sign(raw))  # zero stays in the middle


def test_rgb_filters_keep_zero_at_mid_grey() -> None:
    model = MlpMixer(variant("N/7", in_channels=3, num_classes=2))
    with torch.no_grad():
        model.stem.weight[:, 1] = 0
    values = patch_filters(model).values
    assert np.all(values[..., 1] == 0.5)
    assert values.min() >= 0
    assert values.max() <= 1
    assert np.abs(values - 0.5).max(axis=(1, 2, 3)) == pytest.approx(0.5)


def test_other_channel_counts_show_the_answer_to_grey() -> None:
    model = MlpMixer(variant("N/7", in_channels=4, num_classes=2))
    found = patch_filters(model)
    summed = model.stem.weight.detach().numpy().sum(axis=1)[found.order]
    summed /= np.abs(summed).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found.values, summed, atol=1e-6)


def test_a_unit_is_followed_by_its_negative() -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(size=(12, 7, 7))
    units[3] = wave(1, 7, 7)
    units[10] = -0.01 * units[3]  # a weak copy of opposite sign
    units[8] = -2.0 * units[5]
    order = [int(i) for i in pair_opposites(units)]
    assert sorted(order) == list(range(12))
    for one, other in ((3, 10), (5, 8)):
        assert abs(order.index(one) - order.index(other)) == 1
        assert min(order.index(one), order.index(other)) % 2 == 0  # both in one pair
    assert set(order[:2]) == {3, 10}  # and the lowest frequency is first


def test_an_odd_number_of_units_is_complete() -> None:
    units = np.random.default_rng(1).normal(size=(5, 3, 3))
    assert sorted(pair_opposites(units)) == [0, 1, 2, 3, 4]


def test_units_lie_on_the_token_grid() -> None:
    """A unit that sees one patch only lights up the cell of that patch (raster order)."""
    config = variant("N/7", image_size=(21, 28), in_channels=1, num_classes=2, token_width=12)
    model = MlpMixer(config)
    with torch.no_grad():
        model.blocks[0].token_mixing.fc1.weight.copy_(torch.eye(12))
    found = token_units(model, 0)
    assert found.values.shape == (12, 3, 4)
    for unit, picture in zip(found.order, found.values, strict=True):
        assert np.argwhere(picture).tolist() == [[unit // 4, unit % 4]]


def test_linear_token_mixers_stay_in_raster_order() -> None:
    config = variant("N/7", in_channels=1, num_classes=2, token_mixer="linear")
    found = token_units(MlpMixer(config), 1)
    assert found.order.tolist() == list(range(16))
    assert found.values.shape == (16, 4, 4)


def test_a_part_of_the_pairs_runs_over_the_whole_order() -> None:
    pictures = Pictures(np.zeros((101, 2, 2)), np.arange(101))
    found = spaced(pictures, pairs=6)
    assert found.order.tolist() == [0, 1, 20, 21, 40, 41, 60, 61, 80, 81, 100]
    assert spaced(pictures, pairs=51) is pictures
