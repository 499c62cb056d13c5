"""Products in 8 bits: against a simulation in PyTorch, planted difficulties, and the gate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mixerkit.errors import Refused, UserError
from mixerkit.inference import gate
from mixerkit.inference.eight_bits import (
    SETTINGS,
    Calibration,
    Loss,
    Setting,
    _inside,
    sensitivity,
    sparing,
    tried,
)
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.exported import normalised, open_exported
from mixerkit.inference.gate import Speed, Verdict, judged
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits, folded, followed
from mixerkit.inference.runtimes import RUNTIMES, Runtime
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
PRODUCTS.sort()


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
        with torch.no_grad():
            steps = linear.weight.abs().amax(dim=1, keepdim=True) / 127
            linear.weight.copy_((linear.weight / steps).round() * steps)
        mlp = twin.get_submodule(product.rpartition(".")[0])
        round_input(mlp, product.rpartition(".")[2], own)
    images = torch.from_numpy(normalised(pixels(), PREPROCESS)).double()
    with torch.inference_mode():
        found: np.ndarray = twin(images).numpy()
    return found


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


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("setting", [SETTINGS[0], Setting(99.0, 0.5)])
def test_runtimes_round_as_a_simulation_does(runtime: Runtime, setting: Setting) -> None:
    """Much closer to it than rounding is to float: the noise is that of 8 bits and no other."""
    model = made()
    measured = calibration(model, runtime)
    eight_bits = measured.eight_bits(setting)
    assert sorted(eight_bits.ranges) == PRODUCTS
    found, wanted = measured.logits(eight_bits), simulated(model, eight_bits)
    own = measured.loss(eight_bits).signal_to_noise
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
    assert [len(one.ranges) for one in tries] == [7, 6, 5, 4]
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


# -- the gate ---------------------------------------------------------------------------------


def verdict(agreement: float, speed_up: float) -> Verdict:
    return Verdict(SETTINGS[0], (), Loss(30.0, agreement), times(speed_up), 32, 32)


def times(ratio: float, low: float = 0.0, high: float = 0.0) -> Speed:
    return Speed(ratio, low or ratio, high or ratio, "onnxruntime")


def samples(count: int = 160) -> Samples:
    return parted(pixels(count))


def test_the_gate_wants_both() -> None:
    gate.refuse_unless_good(verdict(0.99, 1.2))
    for agreement, speed_up in ((0.989, 3.0), (1.0, 1.19)):
        with pytest.raises(Refused, match=rf"{agreement:.2%} of 32 images.* {speed_up:.2f} times"):
            gate.refuse_unless_good(verdict(agreement, speed_up))


def test_a_busy_machine_is_named() -> None:
    """Where the rounds do not say the same, it says so, and not where the answers are wrong."""
    undecided = replace(verdict(1.0, 1.1), speed=times(1.1, 0.9, 1.4))
    with pytest.raises(Refused, match=r"0\.90 or less and a quarter 1\.40 or more: try again"):
        gate.refuse_unless_good(undecided)
    for sure in (replace(undecided, speed=times(1.1)), replace(undecided, loss=Loss(1.0, 0.5))):
        with pytest.raises(Refused, match="Not kept") as refused:
            gate.refuse_unless_good(sure)
        assert "try again" not in str(refused.value)


def test_the_speed_is_beside_the_fastest_float_until_rounds_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two runtimes, the one that is fastest in 8 bits, beside whatever is fastest in float."""
    turns = [[0.5, 0.5, 0.5, 1, 2, 2, 2], [1] * 7]

    def timed(calls: Any, **options: Any) -> dict[str, list[float]]:
        shaken = np.array(turns.pop(0))
        seconds = {
            "float in onnxruntime": 3.0,
            "float, right in onnxruntime": 2.5,
            "8 bits in onnxruntime": 1.5,
            "float in openvino": 2.0,
            "float, right in openvino": 4.0,
            "8 bits in openvino": 1.0,
        }
        return {
            name: (seconds[name] * (shaken if name == "8 bits in openvino" else shaken**0)).tolist()
            for name in calls
        }

    monkeypatch.setattr(gate, "interleave", timed)
    measured = calibration(made())
    found = gate.speed_up(measured, measured.eight_bits(SETTINGS[0]), RUNTIMES)
    assert found.runtime == "openvino" and found.ratio == pytest.approx(2.0)
    assert found.decided and not turns, "the first seven rounds decide nothing"


def test_images_in_two_parts() -> None:
    """Validation images judge; without enough of them, so do some of the others."""
    every, held = pixels(200), 255 - pixels(120)
    found = parted(every, held)
    assert np.array_equal(found.learn, every) and np.array_equal(found.judge, held)
    alone = parted(every)
    assert len(alone.learn) == len(alone.judge) == 100
    assert {one.tobytes() for one in every} == {
        one.tobytes() for part in (alone.learn, alone.judge) for one in part
    }
    few = parted(every, held[:30])
    assert len(few.judge) == 100 and len(few.learn) == 130
    assert np.array_equal(few.judge[:30], held[:30])
    assert len(parted(pixels(132)).learn) == 32
    with pytest.raises(UserError, match=r"at least 32 .* 100 others .* found 131 in all"):
        parted(pixels(131))
    with pytest.raises(UserError, match="found 140 in all"):
        parted(pixels(20), held)


def test_judged_on_images_that_chose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = made(), list[np.ndarray]()
    whole = gate.Calibration

    def noting(*given: Any) -> Calibration:
        seen.append(given[3])
        return whole(*given)

    monkeypatch.setattr(gate, "Calibration", noting)
    about = (CONFIG, weights_of(model), PREPROCESS)
    given = samples()
    _, found = judged(
        *about, given, ["onnxruntime"], lambda line: None, 1, SETTINGS[:1], sense=True
    )
    learn, rest, few = seen
    assert (found.calibrated_on, found.judged_on) == (len(learn), len(rest)) == (60, 100)
    assert np.array_equal(learn, given.learn) and np.array_equal(rest, given.judge)
    assert np.array_equal(few, given.learn[: gate.SENSED])
    assert found.speed.ratio > 0 and sorted(found.costs) == PRODUCTS
    assert found.row()["machine"]["instruction_set"]


def test_products_stay_in_float_until_the_judging_images_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The images of the ranges agree at once, the others do not before two products are spared."""
    monkeypatch.setattr(gate, "speed_up", lambda *given: times(2.0))
    whole = Calibration.loss

    def loss(self: Calibration, eight_bits: EightBits) -> Loss:
        true = whole(self, eight_bits)
        judging = len(self.images_NIHW) == 100
        return replace(true, agreement=0.9 if judging and len(eight_bits.ranges) > 6 else 1.0)

    monkeypatch.setattr(Calibration, "loss", loss)
    model = made()
    about = (CONFIG, weights_of(model), PREPROCESS)
    eight_bits, found = judged(*about, samples(), ["onnxruntime"], print, 1, SETTINGS[:1])
    assert found.passes and found.judged_times == 3
    assert list(found.in_float) == sorted(list(found.costs)[:2])
    assert set(found.in_float) | set(eight_bits.ranges) == set(PRODUCTS)


def test_nothing_to_compare() -> None:
    """Without a head there are no classes, and fresh ones say the same of all images."""
    fresh = MlpMixer(CONFIG)
    headless = MlpMixer(replace(CONFIG, num_classes=0))
    for model, says in ((fresh, "same outputs for all"), (headless, "has no head")):
        with pytest.raises(UserError, match=says):
            Calibration(model.config, weights_of(model), PREPROCESS, pixels(8), "onnxruntime")


def bad_setting(measure: Callable[..., Speed], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Half of all values are cut off, and nothing may be left in float."""
    monkeypatch.setattr(gate, "speed_up", measure)
    monkeypatch.setattr(gate, "sparing", lambda *given: ())
    model = made()
    settings = (Setting(50.0),)
    return model, judged(
        CONFIG, weights_of(model), PREPROCESS, samples(), ["onnxruntime"], print, 1, settings
    )


def test_a_bad_setting_is_refused_and_forced_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rounded = bad_setting(lambda *given: times(2.0), monkeypatch)
    assert rounded[1].loss.agreement < 0.99
    with pytest.raises(Refused, match="Not kept in 8 bits"):
        export(model, tmp_path / "a.onnx", pixels(), rounded=rounded)
    assert list(tmp_path.iterdir()) == []
    export(model, tmp_path / "a.onnx", pixels(), rounded=rounded, force=True)
    about = open_exported(tmp_path / "a.onnx").about
    assert about["forced"] is True and about["eight_bits"] == PRODUCTS
    assert about["judged"]["loss"]["agreement"] == rounded[1].loss.agreement
    assert about["judged"]["setting"] == {"percentile": 50.0, "smooth": 0.0}


def test_a_file_that_answers_otherwise_is_refused_whatever_was_judged(tmp_path: Path) -> None:
    """The verdict is of another way to round than what is written."""
    ranges = dict.fromkeys(PRODUCTS, Range(0, 1e-3))
    with pytest.raises(Refused, match=r"in (onnxruntime|openvino) the likeliest class"):
        rounded = EightBits(ranges), verdict(1.0, 2.0)
        export(made(), tmp_path / "a.onnx", pixels(), rounded=rounded)
    assert list(tmp_path.iterdir()) == []
    export(made(), tmp_path / "a.onnx", pixels(), rounded=rounded, force=True)
    assert open_exported(tmp_path / "a.onnx").about["forced"] is True


def test_a_good_one_is_kept_in_a_quarter_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "speed_up", lambda *given: times(2.0))
    model = made(replace(CONFIG, width=96, channel_width=384, token_width=64))
    found = judged(
        model.config, weights_of(model), PREPROCESS, samples(), ["onnxruntime"], print, 1,
        (Setting(),),
    )  # fmt: skip
    assert found[1].passes
    whole = export(model, tmp_path / "whole.onnx", pixels())
    small = export(model, tmp_path / "small.onnx", pixels(), rounded=found)
    assert small.size < 0.35 * whole.size
    assert open_exported(tmp_path / "small.onnx").about["forced"] is False
    assert all(one.top1_agreement >= gate.LEAST_AGREEMENT for one in small.comparisons)
