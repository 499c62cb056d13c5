"""Numbers of units: planted pairs, waves and spots are found, noise is not taken for them."""

import numpy as np
import pytest
import torch

from mixerkit.errors import UserError
from mixerkit.insight.units import (
    BANDS,
    effective_mixing,
    energy_by_frequency,
    influence,
    nearest_negative,
    neighbour_correlation,
    shuffled,
    spreads,
    structure,
    structure_of,
)
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from tests.model.random_weights import randomise

SIDE = 14


def gabor(cycles: float, angle: float, phase: float, place: tuple[float, float], wide: float):
    """A wave under a bell: what a pair of opposite phase is made of."""
    row, column = np.mgrid[:SIDE, :SIDE].astype(float)
    along = (row - place[0]) * np.sin(angle) + (column - place[1]) * np.cos(angle)
    bell = np.exp(-((row - place[0]) ** 2 + (column - place[1]) ** 2) / (2 * wide**2))
    return bell * np.cos(2 * np.pi * cycles * along / SIDE + phase)


def planted(pairs: int, alone: int, seed: int = 0) -> np.ndarray:
    """Pairs of opposite Gabors and random units, shuffled, each of its own strength."""
    draw = np.random.default_rng(seed)
    units = []
    for _ in range(pairs):
        one = gabor(draw.uniform(1, 4), draw.uniform(0, np.pi), draw.uniform(0, 6),
                    tuple(draw.uniform(3, 10, 2)), draw.uniform(1.5, 2.5))  # fmt: skip
        units += [one, -draw.uniform(0.5, 2) * one + 0.02 * draw.normal(size=one.shape)]
    units += [draw.normal(size=(SIDE, SIDE)) for _ in range(alone)]
    return np.stack(units)[draw.permutation(len(units))]


def model_with(units_Nhw: np.ndarray) -> MlpMixer:
    model = MlpMixer(
        MixerConfig(image_size=SIDE, patch_size=1, width=4, depth=2, token_width=len(units_Nhw))
    )
    with torch.no_grad():
        flat = torch.from_numpy(units_Nhw.reshape(len(units_Nhw), -1))
        model.blocks[0].token_mixing.fc1.weight.copy_(flat)
    return model


def test_planted_pairs_are_found_and_random_units_have_no_partner() -> None:
    model = model_with(planted(pairs=20, alone=24))
    first, second = structure(model, 0), structure(model, 1)
    assert first.partners == pytest.approx(40 / 64)
    assert first.partners_shuffled == second.partners == 0
    assert first.local == pytest.approx(40 / 64)
    assert first.local_shuffled == first.wide_shuffled - 1 == 0
    assert first.wide == pytest.approx(24 / 64) and second.wide == 1
    assert second.local == 0 and second.spread == pytest.approx(1, abs=0.1)
    assert first.smoothness > 0.3 > abs(second.smoothness)
    assert abs(first.smoothness_shuffled) < 0.1
    assert first.frequency < 0.9 * first.frequency_of_noise
    assert second.frequency == pytest.approx(second.frequency_of_noise, abs=0.02)
    assert first.energy[0] + first.energy[1] > 1.2 * sum(first.energy_of_noise[:2])


def test_the_spread_of_a_spot_is_none_and_of_a_uniform_field_one() -> None:
    spot, uniform = np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))
    spot[3, 9] = -2
    halves = np.zeros((SIDE, SIDE))
    halves[:, [0, -1]] = 1  # the far edges: wider than uniform
    found = spreads(np.stack([spot, uniform, halves, 0 * spot]))
    assert found[[0, 1, 3]] == pytest.approx([0, 1, 0]) and found[2] > 1.2


def test_filters_of_three_channels_are_measured_as_one_field_each() -> None:
    """The same field in all channels has the figures of that field alone; channels are shuffled
    together."""
    one = planted(pairs=6, alone=4)
    same, alone = structure_of(np.stack([one] * 3, axis=1)), structure_of(one)
    for name in ("local", "wide", "spread", "partners", "smoothness", "frequency"):
        assert getattr(same, name) == pytest.approx(getattr(alone, name)), name
    assert same.energy == pytest.approx(alone.energy)
    mixed = shuffled(np.stack([one, -2 * one], axis=1), seed=3)
    assert np.array_equal(mixed[:, 1], -2 * mixed[:, 0])
    assert np.array_equal(np.sort(mixed[:, 0].reshape(16, -1)), np.sort(one.reshape(16, -1)))


def test_units_that_died_are_neither_local_nor_wide() -> None:
    found = structure_of(np.zeros((4, 5, 5)))
    assert (found.local, found.wide, found.partners, found.frequency) == (0, 0, 0, 0)


def test_a_field_of_one_place_has_figures() -> None:
    """Patches of one pixel, or an image of one patch."""
    found = structure_of(np.array([2.0, -1.0, 0.5]).reshape(3, 1, 1))
    assert (found.smoothness, found.frequency, found.wide) == (0, 0, 0)
    assert found.partners == 1 and sum(found.energy) == pytest.approx(1)


def test_strength_does_not_count_for_opposites() -> None:
    one = np.random.default_rng(0).normal(size=(4, 5))
    found = nearest_negative(np.stack([one, -3 * one, one.T.reshape(4, 5)]))
    assert found[:2] == pytest.approx([-1, -1])


def test_neighbours_of_a_chessboard_are_opposite() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    chess = (-1.0) ** (row + column)
    assert neighbour_correlation(
        np.stack([chess, np.ones_like(chess), 0 * chess])
    ) == pytest.approx([-1, 1, 0])


def test_energy_stands_in_the_band_of_its_frequency() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    for field, band in ((np.ones((SIDE, SIDE)), 0), ((-1.0) ** (row + column), BANDS - 1)):
        energy, noise = energy_by_frequency(field[None])
        assert energy[band] == pytest.approx(1) and noise.sum() == pytest.approx(1)
    noise_units = np.random.default_rng(0).normal(size=(500, SIDE, SIDE))
    energy, noise = energy_by_frequency(noise_units)
    assert energy == pytest.approx(noise, abs=0.01)


@pytest.mark.parametrize("mixer", ["mlp", "linear"])
def test_effective_mixing_is_what_small_inputs_meet(mixer: str) -> None:
    """Near 0 a GELU is x/2: the Jacobian there is half of W2 · W1."""
    config = MixerConfig(
        image_size=4, patch_size=1, width=3, depth=1, token_width=7, token_mixer=mixer
    )
    model = randomise(MlpMixer(config))
    mixing = model.blocks[0].token_mixing
    with torch.no_grad():
        for name, parameter in mixing.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    x = torch.zeros(1, 16, 3)
    jacobian = torch.autograd.functional.jacobian(mixing, x)[0, :, 0, 0, :, 0].numpy()
    half = 0.5 if mixer == "mlp" else 1.0
    assert half * effective_mixing(model, 0) == pytest.approx(jacobian, abs=1e-5)


def test_there_is_no_matrix_of_other_mixers() -> None:
    model = MlpMixer(variant("N/7", in_channels=1, token_mixer="pool"))
    with pytest.raises(UserError, match="mlp and linear, found pool"):
        effective_mixing(model, 0)


def test_influence_is_nothing_but_where_the_model_looks() -> None:
    """A model that sees one patch alone: all other patches may be replaced."""
    config = MixerConfig(
        image_size=(8, 12), patch_size=4, in_channels=2, width=6, depth=1, token_width=5,
        channel_width=7, num_classes=3, token_mixer="linear", channel_mixer="linear", norm=False,
    )  # fmt: skip
    model = randomise(MlpMixer(config)).train()
    seen = 4  # row 1, column 1
    with torch.no_grad():
        mixing = model.blocks[0].token_mixing.fc.weight
        # the mean over tokens of x + W x: what a token adds is 1 + the sum of its column
        mixing[0] = -1 - mixing[1:].sum(dim=0)
        mixing[0, seen] += 3
    image = torch.randn(2, 8, 12)
    found = influence(model, image, label=1)
    assert model.training
    others = np.delete(found.ravel(), seen)
    assert np.abs(others).max() < 1e-4 < 1e-2 < abs(found[1, 1])
    changed = image.clone()
    changed[:, 4:8, 4:8] = image.mean(dim=(1, 2), keepdim=True)
    with torch.no_grad():
        fall = (model(image[None]) - model(changed[None]))[0, 1]
    assert found[1, 1] == pytest.approx(float(fall), abs=1e-5)
