"""Schedule, loss and averaging against their definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixerkit.spec.recipe import Loss, Schedule
from mixerkit.training.ema import Average
from mixerkit.training.loss import TargetLoss
from mixerkit.training.schedule import learning_rate_factor


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_schedule_is_its_formula(decay: str) -> None:
    schedule = Schedule(decay=decay, final=0.1)
    found = [learning_rate_factor(step, 100, 10, schedule) for step in range(100)]
    for step in range(10):
        assert found[step] == pytest.approx((step + 1) / 11)
    for step in range(10, 100):
        t = (step - 10) / 90
        expected = {
            "linear": 0.1 + 0.9 * (1 - t),
            "cosine": 0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2,
            "constant": 1.0,
        }[decay]
        assert found[step] == pytest.approx(expected)
    assert max(found) == found[10] == 1.0


def test_no_update_is_spent_at_zero() -> None:
    found = [learning_rate_factor(step, 20, 0, Schedule()) for step in range(20)]
    assert min(found) == pytest.approx(1 / 20)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_softmax_loss_is_torchs_cross_entropy(smoothing: float, weights: str) -> None:
    logits, labels = torch.randn(32, 5), torch.randint(0, 5, (32,))
    counts = np.array([10, 20, 30, 40, 100])
    spec = Loss(label_smoothing=smoothing, class_weights=weights)
    found = TargetLoss(spec, counts)(logits, F.one_hot(labels, 5).float())
    balanced = torch.tensor(200 / (5 * counts), dtype=torch.float32)
    if weights == "none":
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    else:
        smooth = F.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
        terms = -smooth * logits.log_softmax(1) * balanced
        expected = terms.sum() / (smooth * balanced).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_balanced_weights_without_smoothing_are_torchs_weighted_mean() -> None:
    logits, labels = torch.randn(32, 3), torch.randint(0, 3, (32,))
    counts = np.array([10, 20, 70])
    found = TargetLoss(Loss(class_weights="balanced"), counts)(logits, F.one_hot(labels, 3).float())
    weight = torch.tensor(100 / (3 * counts), dtype=torch.float32)
    assert found.item() == pytest.approx(F.cross_entropy(logits, labels, weight=weight).item())


def test_sigmoid_loss_is_the_sum_over_classes() -> None:
    logits, targets = torch.randn(4, 3), torch.rand(4, 3)
    found = TargetLoss(Loss(kind="sigmoid"), np.ones(3))(logits, targets)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), targets.double().numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_average_follows_its_formula_and_gives_the_weights_back() -> None:
    model = torch.nn.Linear(3, 2)
    average = Average(model, decay=0.9)
    expected = model.weight.detach().clone()
    for step in range(5):
        torch.nn.init.normal_(model.weight)
        average.update(model, step)
        d = min(0.9, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * model.weight.detach()
    own = model.weight.detach().clone()
    with average.applied(model):
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, own)


def test_running_statistics_are_averaged_with_the_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    average = Average(model, decay=0.9)
    norm = model[1]
    assert isinstance(norm, torch.nn.BatchNorm1d) and norm.running_mean is not None
    expected = norm.running_mean.clone()
    for step in range(5):
        model(torch.randn(8, 3))
        average.update(model, step)
        d = min(0.9, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * norm.running_mean
    own, counted = norm.running_mean.clone(), int(norm.num_batches_tracked or 0)
    with average.applied(model):
        torch.testing.assert_close(norm.running_mean, expected)
    assert torch.equal(norm.running_mean, own) and counted == 5
