"""Products in 8 bits: against a simulation in PyTorch, and planted difficulties."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mixerkit.inference.eight_bits import (
    SETTINGS,
    Setting,
    _inside,
    sensitivity,
    sparing,
    tried,
)
from mixerkit.inference.export import weights_of
from mixerkit.inference.exported import normalised
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits, folded, followed
from mixerkit.inference.runtimes import NATIVE, RUNTIMES, Runtime
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from tests.inference.small_model import CONFIG, PREPROCESS, PRODUCTS, calibration, made, pixels


def simulated(model: MlpMixer, eight_bits: EightBits) -> np.ndarray:
    """The same rounding in PyTorch: inputs and matrices of the products are rounded, and all is
    computed in float64."""
    weights = folded(model.config, weights_of(model))
    for norm, product in followed(model.config):
        if norm in eight_bits.smooth:
            scale = eight_bits.smooth[norm]
            for name in (f"{norm}.weight", f"{norm}.bias"):
                weights[name] = weights[name] / scale
            weights[f"{product}.weight"] = weights[f"{product}.weight"] * scale
    twin = MlpMixer(model.config).double().eval()
    twin.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in weights.items()})
    for product, own in eight_bits.ranges.items():
        linear = twin.get_submodule(product)
        if product == "stem":
            round_stem(linear, eight_bits.pixels)
            continue
        with torch.no_grad():
            steps = linear.weight.abs().amax(dim=1, keepdim=True) / 127
            linear.weight.copy_((linear.weight / steps).round() * steps)
        mlp = twin.get_submodule(product.rpartition(".")[0])
        round_input(mlp, product.rpartition(".")[2], own)
    images = torch.from_numpy(normalised(pixels(), PREPROCESS)).double()
    with torch.inference_mode():
        found: np.ndarray = twin(images).numpy()
    return found


def round_stem(stem: nn.Module, preprocess: Preprocess | None) -> None:
    """Pixels are whole numbers, so that the matrix alone is rounded; what is taken off them, so
    that they are about zero, goes through the matrix as it was."""
    assert preprocess
    mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (preprocess.mean, preprocess.std))
    with torch.no_grad():
        exact = stem.weight.clone()
        steps = (exact / std).abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        stem.weight.copy_((exact / std / steps).round() * steps * std)
        middle = (128 / 255 - mean) / std
        stem.bias += ((exact - stem.weight) * middle).sum(dim=(1, 2, 3))


def round_input(mlp: nn.Module, layer: str, own: Range) -> None:
    """fc1 sees what goes into the MLP, fc2 what GELU gives."""

    def rounded(x: Tensor) -> Tensor:
        steps = (x / own.scale).round() + own.zero_point
        return (steps.clamp(0, 255) - own.zero_point) * own.scale

    if layer == "fc1":
        mlp.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    else:
        mlp.act.register_forward_hook(lambda _, inputs, output: rounded(output))


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    signal = np.square(wanted - wanted.mean(axis=0)).mean()
    return float(10 * np.log10(signal / np.square(found - wanted).mean()))


@pytest.mark.parametrize("runtime", [*RUNTIMES, NATIVE])
@pytest.mark.parametrize("setting", [SETTINGS[0], Setting(99.0, 0.5)])
def test_runtimes_round_as_a_simulation_does(runtime: Runtime, setting: Setting) -> None:
    """Much closer to it than rounding is to float: the noise is that of 8 bits and no other."""
    model = made()
    measured = calibration(model, "openvino" if runtime == "openvino" else "onnxruntime")
    eight_bits = measured.eight_bits(setting)
    assert sorted(eight_bits.ranges) == PRODUCTS
    found, wanted = measured.logits(eight_bits, runtime), simulated(model, eight_bits)
    own = measured.loss(eight_bits, runtime).signal_to_noise
    assert 10 < own < 50
    assert decibels(found, wanted) > own + 12
    assert decibels(wanted, measured.wanted_NK) == pytest.approx(own, abs=0.5)


def test_a_range_has_zero_among_its_steps() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)):
        own = Range(low, high)
        assert 0 <= own.zero_point <= 255
        ends = [(step - own.zero_point) * own.scale for step in (0, 255)]
        assert ends[0] <= low + own.scale and ends[1] >= high - own.scale
    assert Range(0.5, 2.0).zero_point == 0 and Range(-3.0, -1.0).zero_point == 255


def test_what_is_beyond_a_percentile_is_cut_off() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    ends = Range(float(values.min()), float(values.max()))
    counts = np.histogram(values, 4096, (ends.low, ends.high))[0]
    found = _inside(counts, ends, 99.0)
    assert found.low == pytest.approx(np.percentile(values, 0.5), abs=0.01)
    assert found.high == pytest.approx(np.percentile(values, 99.5), abs=0.01)


def test_smoothing_alone_changes_nothing() -> None:
    model = made()
    measured = calibration(model)
    smooth = measured.eight_bits(Setting(smooth=0.5)).smooth
    assert sorted(smooth) == ["blocks.0.channel_norm", "blocks.1.channel_norm"]
    assert decibels(measured.logits(EightBits({}, smooth)), measured.wanted_NK) > 110


def test_smoothing_helps_where_a_channel_is_far_larger() -> None:
    """A channel that is always large takes the steps from all others, unless it is smoothed."""
    model = made()
    with torch.no_grad():
        model.stem.bias[7] = 50
        others = torch.arange(CONFIG.width) != 7
        model.blocks[0].channel_mixing.fc1.weight[:, others] *= 50  # they count all the same
    measured = calibration(model)
    plain, smooth = (
        measured.loss(
            only(measured.eight_bits(Setting(smooth=alpha)), "blocks.0.channel_mixing.fc1")
        )
        for alpha in (0.0, 0.5)
    )
    assert smooth.signal_to_noise > plain.signal_to_noise + 6
    best = tried(measured, lambda line: None)[0]
    assert best[0].smooth == 0.5


def only(eight_bits: EightBits, product: str) -> EightBits:
    return replace(eight_bits, ranges={product: eight_bits.ranges[product]})


def test_the_product_that_costs_most_is_found_and_left_in_float() -> None:
    """One range is wrong on purpose."""
    model = made()
    measured = calibration(model)
    good = measured.eight_bits(SETTINGS[0])
    bad = "blocks.1.token_mixing.fc2"
    broken = replace(good, ranges=dict(good.ranges) | {bad: Range(0, 0.01)})
    lines: list[str] = []
    losses = sensitivity(measured, broken, lines.append)
    assert next(iter(losses)) == bad and sorted(losses) == PRODUCTS and len(lines) == len(PRODUCTS)
    tries = list(sparing(broken, losses))
    assert [len(one.ranges) for one in tries] == [8, 7, 6, 5]
    assert set(PRODUCTS) - set(tries[0].ranges) == {bad}
    assert measured.loss(tries[0]).agreement >= 0.95 > measured.loss(broken).agreement


def test_every_token_mixer_can_be_rounded() -> None:
    from mixerkit.spec.token_mixers import TOKEN_MIXERS

    for name in TOKEN_MIXERS:
        groups = 4 if name in ("attention", "grouped") else 1
        model = made(replace(CONFIG, depth=1, token_mixer=name, token_groups=groups))
        measured = calibration(model)
        loss = measured.loss(measured.eight_bits(SETTINGS[0]))
        assert loss.signal_to_noise > 15, name
