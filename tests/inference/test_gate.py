"""The gate before 8 bits: who judges, on what, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixerkit.errors import Refused, UserError
from mixerkit.inference import gate
from mixerkit.inference.eight_bits import (
    SETTINGS,
    Calibration,
    Loss,
    Setting,
)
from mixerkit.inference.engine import Predictor
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.exported import open_exported
from mixerkit.inference.gate import Speed, Verdict, judged
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits
from mixerkit.inference.runtimes import RUNTIMES, Runtime
from mixerkit.inference.samples import parted, spread
from mixerkit.model.mixer import MlpMixer
from tests.inference.small_model import (
    CONFIG,
    PREPROCESS,
    PRODUCTS,
    calibration,
    made,
    pixels,
    samples,
)


def verdict(agreement: float, speed_up: float) -> Verdict:
    return Verdict(SETTINGS[0], (), Loss(30.0, agreement), times(speed_up), 32, 32)


def times(ratio: float, low: float = 0.0, high: float = 0.0) -> Speed:
    return Speed(ratio, low or ratio, high or ratio, "onnxruntime")


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
            "8 bits in openvino": 1.5,
            "8 bits in openvino, images for each": 1.0,
        }
        best = "8 bits in openvino, images for each"
        return {
            name: (seconds.get(name, 9.0) * (shaken if name == best else shaken**0)).tolist()
            for name in calls
        }

    monkeypatch.setattr(gate, "interleave", timed)
    measured = calibration(made())
    found = gate.speed_up(measured, measured.eight_bits(SETTINGS[0]), RUNTIMES)
    assert found.runtime == "openvino" and found.ratio == pytest.approx(2.0)
    assert found.decided and not turns, "the first seven rounds decide nothing"
    assert found.in_each == pytest.approx({"onnxruntime": 2.5 / 1.5, "openvino": 2.0})
    assert found.elsewhere == "; 1.67 in onnxruntime alone"


def test_our_own_code_is_timed_beside_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_ROUNDS", gate.ROUNDS)
    measured = calibration(made())
    eight_bits = measured.eight_bits(SETTINGS[0])
    found = gate.speed_up(measured, eight_bits, ["onnxruntime", "native"])
    assert set(found.in_each) == {"onnxruntime", "native"} and found.in_each["native"] > 0


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
    assert np.array_equal(few, given.learn[spread(60, gate.SENSED)])
    assert found.speed.ratio > 0 and sorted(found.costs) == PRODUCTS
    assert found.row()["machine"]["instruction_set"]


def test_products_stay_in_float_until_the_judging_images_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The images of the ranges agree at once, the others do not before two products are spared."""
    monkeypatch.setattr(gate, "speed_up", lambda *given: times(2.0))
    whole = Calibration.loss

    def loss(self: Calibration, eight_bits: EightBits, *runtime: Runtime) -> Loss:
        true = whole(self, eight_bits)
        judging = len(self.images_NIHW) == 100
        most = len(PRODUCTS) - 2
        return replace(true, agreement=0.9 if judging and len(eight_bits.ranges) > most else 1.0)

    monkeypatch.setattr(Calibration, "loss", loss)
    model = made()
    about = (CONFIG, weights_of(model), PREPROCESS)
    eight_bits, found = judged(*about, samples(), ["onnxruntime"], print, 1, SETTINGS[:1])
    assert found.passes and found.judged_times == 3
    assert list(found.in_float) == sorted(list(found.costs)[:2])
    assert set(found.in_float) | set(eight_bits.ranges) == set(PRODUCTS)


def test_every_runtime_that_may_answer_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that agrees least is what is told."""
    monkeypatch.setattr(gate, "speed_up", lambda *given: times(2.0))
    monkeypatch.setattr(gate, "sparing", lambda *given: ())
    whole = Calibration.loss

    def loss(self: Calibration, eight_bits: EightBits, runtime: Runtime | None = None) -> Loss:
        true = whole(self, eight_bits, runtime)
        return replace(true, agreement=0.7 if runtime == "openvino" else 1.0)

    monkeypatch.setattr(Calibration, "loss", loss)
    about = (CONFIG, weights_of(made()), PREPROCESS, samples())
    both = judged(*about, RUNTIMES, print, 1, SETTINGS[:1])[1]
    assert both.loss.agreement == 0.7 and not both.passes
    assert judged(*about, ["onnxruntime"], print, 1, SETTINGS[:1])[1].passes


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
    for precision in ("float32", "bfloat16"):
        with pytest.raises(UserError, match="exported in 8 bits and not computed in"):
            Predictor(tmp_path / "a.onnx", precision)  # type: ignore[arg-type]


def test_a_file_that_answers_otherwise_is_refused_whatever_was_judged(tmp_path: Path) -> None:
    """The verdict is of another way to round than what is written."""
    ranges = dict.fromkeys(PRODUCTS, Range(0, 1e-3))
    with pytest.raises(Refused, match=r"in (onnxruntime|openvino) the likeliest class"):
        rounded = EightBits(ranges, pixels=PREPROCESS), verdict(1.0, 2.0)
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
