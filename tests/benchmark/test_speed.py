"""The speed study: what its rows say, and that both sides do the same work."""

import functools

import pytest
import torch

from mixerkit.benchmark import speed
from mixerkit.benchmark.speed import contenders, measure, rounds_for
from mixerkit.benchmark.workload import MODES, Workload, models
from mixerkit.results import read_results


def test_quick_study_writes_an_eager_and_a_best_row_for_each_mode(tmp_path):
    said = []
    rows = speed.study(tmp_path / "speed.json", said.append, quick=True)
    content = read_results(tmp_path / "speed.json")
    assert content["command"] == "mixer bench speed --quick" and content["rows"] == rows
    assert [(row["mode"], row["form"]) for row in rows] == [
        (mode, form) for mode in MODES for form in ("eager", "best")
    ]
    for row in rows:
        low, high = row["speedup_quartiles"]
        assert row["ours_seconds"] > 0 and low <= row["speedup"] <= high and row["spread"] >= 0
    assert len(said) == 4 and "timm" in said[0]


def test_the_studied_models_are_ones_that_timm_can_be():
    for name, config in models().items():
        assert config.gelu == "erf", name
    assert {name for name, _ in speed.CASES} == {"demo", "S/16", "B/16"}
    for _, batches in speed.CASES:
        assert {1, 8, 32} <= set(batches)


def test_both_sides_see_the_same_images_and_give_the_same_gradients():
    work, sides = Workload("N/7", 3, "training"), contenders("N/7", ("eager",))
    norms = []
    for module in sides.values():
        work.call(module)()
        norms.append(sum(float(p.grad.square().sum()) for p in module.parameters()))
        assert module.training
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and norms[0] > 0
    Workload("N/7", 3, "forward").call(sides["ours eager"])()
    assert not sides["ours eager"].training


def test_best_takes_the_faster_form_of_each_side():
    seconds = {
        "ours eager": [2.0, 2.0],
        "timm eager": [3.0, 3.0],
        "ours compiled": [1.0, 1.0],
        "timm compiled": [4.0, 4.0],
        "again": [2.0, 2.0],
        "products": [0.5, 0.5],
    }
    assert speed._pairs(seconds)[-1] == ("best", "ours compiled", "timm eager")
    assert [form for form, *_ in speed._pairs(seconds)] == ["eager", "compiled", "best"]


def test_fast_cases_get_more_rounds_than_slow_ones():
    assert rounds_for(Workload("N/7", 1, "forward")) == speed.ROUNDS[1]
    assert rounds_for(Workload("B/16", 32, "training")) == speed.ROUNDS[0]
    middle = rounds_for(Workload("S/16", 8, "forward"))
    assert speed.ROUNDS[0] < middle < speed.ROUNDS[1]


def test_compiled_forms_are_timed_and_share_the_weights(monkeypatch):
    graphs_only = functools.partial(torch.compile, backend="eager")  # no C++: seconds, not minutes
    monkeypatch.setattr(torch, "compile", graphs_only)
    sides = contenders("N/7", speed.FORMS)
    assert list(sides) == [f"{side} {form}" for form in speed.FORMS for side in ("ours", "timm")]
    rows = [row for mode in MODES for row in measure(Workload("N/7", 2, mode), sides, 2)]
    assert [row["form"] for row in rows] == ["eager", "compiled", "best"] * 2
    images = torch.randn(2, 1, 28, 28)
    with torch.inference_mode():
        logits = [module.eval()(images) for module in sides.values()]
    for other in logits[1:]:
        assert (other - logits[0]).abs().max() <= 1e-5 * logits[0].abs().max()
