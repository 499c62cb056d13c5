"""What a GPU changes: nothing but the speed. Collected everywhere, run where there is one; most of
the other tests train and measure there too when they find one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.cli.main import main
from mixerkit.data.loader import Batch
from mixerkit.errors import RunFailed
from mixerkit.inference.engine import Predictor
from mixerkit.inference.ways import Precision
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Optimizer, Recipe
from mixerkit.training.loop import train
from mixerkit.training.loss import TargetLoss
from mixerkit.training.setup import Steps
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update
from tests.training.runs import RECIPE, SAMPLE, StopAt, assert_same_end

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

STEPS = Steps(100, 100, 0, 100, 100, 100)
WITHOUT_DROPOUT = replace(RECIPE, model=replace(RECIPE.model, dropout=0.0))  # draws differ there


@pytest.mark.parametrize("label", ["N/7", "S/32", "B/16"])
@pytest.mark.parametrize(
    ("precision", "compiled", "within"),
    [("float32", False, 1e-5), ("float32", True, 1e-5), ("bfloat16", False, 3e-2)],
)
def test_outputs_are_those_of_float64_on_the_processor(
    label: str, precision: str, compiled: bool, within: float
) -> None:
    model = MlpMixer(variant(label, num_classes=10)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    images = torch.randn(4, model.config.in_channels, *model.config.image_hw)
    with torch.inference_mode():
        wanted = model.double()(images.double())
        model = model.float().cuda()
        forward = torch.compile(model) if compiled else model
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            found = forward(images.cuda())
    error = (found.double().cpu() - wanted).norm() / wanted.norm()
    assert error < within


@pytest.mark.parametrize("optimizer", [
    Optimizer(name="muon", lr=0.02, adamw_lr=0.003, clip=1.0),
    Optimizer(name="adamw", lr=0.003, clip=1.0),
    Optimizer(name="sgd", lr=0.05, sam=0.05),
])  # fmt: skip
def test_updates_are_those_of_the_processor(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: ten steps with accumulation, stochastic depth and averaged weights."""
    recipe = replace(
        WITHOUT_DROPOUT, optimizer=optimizer, precision="float64", batch_size=16, ema=0.9
    )
    labels = torch.arange(16) % 10
    targets = torch.eye(10)[labels]
    batches = [
        Batch(torch.randn(16, 1, 28, 28) + labels[:, None, None, None] / 5, targets, (), order)
        for order in np.random.default_rng(0).permuted(np.tile(np.arange(16), (10, 1)), axis=1)
    ]

    def run() -> tuple[list[tuple[float, float]], dict[str, torch.Tensor]]:
        state = fresh_state(recipe)
        update = Update(recipe, STEPS, TargetLoss(recipe.loss, np.ones(10)), state)
        figures = [update(batch) for batch in batches]
        return figures, {name: t.cpu() for name, t in state.tensors().items()}

    there, theirs = run()
    assert {p.device.type for p in fresh_state(recipe).model.parameters()} == {"cuda"}
    monkeypatch.setattr("mixerkit.training.state.device_here", lambda: torch.device("cpu"))
    here, ours = run()
    assert there[-1][0] < there[0][0]
    np.testing.assert_allclose(there, here, rtol=1e-9)
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    recipe = replace(RECIPE, precision=precision)
    straight = train(recipe, tmp_path / "straight")
    assert straight.test is not None
    stopped = train(recipe, tmp_path / "run", watch=StopAt(13, 15))
    assert 13 <= stopped.steps < straight.steps
    train(recipe, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "straight", tmp_path / "run")


def test_compiled_training_learns_the_same(tmp_path: Path) -> None:
    recipe = replace(WITHOUT_DROPOUT, duration="20 steps", compile="on")
    train(recipe, tmp_path / "compiled")
    train(replace(recipe, compile="off"), tmp_path / "eager")
    one, other = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("compiled", "eager")
    )
    np.testing.assert_allclose(one[:20], other[:20], rtol=1e-3)


def on_processor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mixerkit", *words],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_goes_on_and_is_measured_on_a_processor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    run = tmp_path / "run"
    train(RECIPE, run, watch=StopAt(13, 15))
    resumed = on_processor("train", "--resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert f"device: {torch.cuda.get_device_name()} then, processor now" in resumed.stdout
    assert main(["evaluate", str(run), "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    here = on_processor("evaluate", str(run), "--json")
    assert here.returncode == 0, here.stderr
    assert there["top1"] == json.loads(here.stdout)["top1"]
    assert there["nll"] == pytest.approx(json.loads(here.stdout)["nll"], rel=1e-5)


def test_prediction_is_that_of_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    pictures = SAMPLE.parents[2] / "docs" / "images"
    assert main(["predict", str(pictures), "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    here = on_processor("predict", str(pictures), "--json")
    assert here.returncode == 0, here.stderr
    for one, other in zip(there, json.loads(here.stdout), strict=True):
        assert one["classes"][0]["name"] == other["classes"][0]["name"]
        assert one["classes"][0]["probability"] == pytest.approx(
            other["classes"][0]["probability"], abs=1e-5
        )


def test_a_step_that_does_not_fit_says_what_does(tmp_path: Path) -> None:
    """As much is taken here as is needed for a step to be too large."""
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 3 * 2**30), dtype=torch.uint8, device="cuda")
    recipe = Recipe(
        model=variant("B/16", image_size=224, in_channels=1, num_classes=10),
        data=replace(RECIPE.data, workers=1),
        batch_size=100,
        duration="2 steps",
        compile="off",
    )
    with pytest.raises(RunFailed, match=r"not enough.*A step needs about .* --accumulation \d+"):
        train(recipe, tmp_path / "run")
    del taken


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_a_predictor_computes_where_the_model_is(precision: Precision, within: float) -> None:
    model = MlpMixer(variant("N/7", num_classes=10)).eval()
    torch.nn.init.normal_(model.head.weight)
    config = model.config
    model.preprocess = Preprocess(config.image_size, channels=config.in_channels)
    pixels = np.random.default_rng(0).integers(
        0, 256, (5, config.in_channels, *config.image_hw), np.uint8
    )
    wanted = Predictor(model, backend="pytorch").logits(pixels)
    predictor = Predictor(model.cuda(), precision)
    assert repr(predictor).endswith(f"pytorch{', bfloat16' * (precision == 'bfloat16')})")
    found = predictor.logits(pixels)
    assert np.abs(found - wanted).max() < within * np.abs(wanted).max()
