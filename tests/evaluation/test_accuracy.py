"""Accuracy figures in small cases worked out by hand; test_oracles.py asks libraries."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import confident_mistakes, evaluate, measure, probabilities
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def test_calibration_error_by_hand() -> None:
    """Confidences 0.95, 0.95, 0.6, 0.6: bins (14/15, 1] and (8/15, 9/15].

    In the first bin one of two is right: |0.5 − 0.95| = 0.45. In the second both are:
    |1 − 0.6| = 0.4. Each bin has half of the images: 0.5 · 0.45 + 0.5 · 0.4 = 0.425.
    """
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.4, 0.6]], dtype=torch.float64)
    found = measure(p, torch.tensor([0, 1, 1, 1]), names(2))
    assert found.ece == pytest.approx(0.425, abs=1e-12)


def test_calibration_error_bins_are_not_merged() -> None:
    """Too sure in one bin and not sure enough in another do not cancel."""
    p = torch.tensor([[0.9, 0.1], [0.5001, 0.4999]], dtype=torch.float64)
    found = measure(p, torch.tensor([1, 0]), names(2))
    assert found.ece == pytest.approx((0.9 + 0.4999) / 2, abs=1e-12)


def test_certain_and_right_has_no_error() -> None:
    found = measure(torch.eye(3), torch.arange(3), names(3))
    assert (found.top1, found.nll, found.ece) == (1.0, 0.0, 0.0)


def test_certain_and_wrong_has_a_finite_nll() -> None:
    found = measure(torch.eye(2), torch.tensor([1, 0]), names(2))
    assert found.nll == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_ties_go_to_the_lower_index() -> None:
    """A model that has learned nothing gets what it deserves: one class of ten, five of ten."""
    found = measure(torch.full((10, 10), 0.1), torch.arange(10), names(10))
    assert found.top1 == pytest.approx(0.1)
    assert found.top5 == pytest.approx(0.5)
    assert [row[0] for row in found.confusion] == [1] * 10


def test_classes_without_images_or_predictions() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    found = measure(p, torch.tensor([0, 1]), names(3))
    assert [(c.samples, c.recall, c.precision) for c in found.per_class] == [
        (1, 1.0, 0.5),
        (1, 0.0, None),
        (0, None, None),
    ]


def test_one_image() -> None:
    found = measure(torch.tensor([[0.25, 0.75]]), torch.tensor([1]), names(2))
    assert (found.samples, found.top1, found.top5) == (1, 1.0, 1.0)
    assert found.nll == pytest.approx(-math.log(0.75))
    assert found.ece == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        ([[0.5, math.nan]], [0], "NaN"),
        ([[0.5, math.inf]], [0], "infinite"),
        ([[2.0, -1.0]], [0], "softmax"),
        ([[3.0, 1.0]], [0], "softmax"),
        ([[0.5, 0.5]], [2], "labels from 0 to 1"),
        ([[0.5, 0.5]], [-1], "labels from 0 to 1"),
        ([[0.5, 0.5]], [0, 1], "one label"),
        ([[0.2, 0.3, 0.5]], [0], "2 classes"),
    ],
)
def test_bad_input_is_refused(p: list[list[float]], y: list[int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        measure(torch.tensor(p), torch.tensor(y), names(2))


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        measure(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), names(2))
    with pytest.raises(UserError, match="split is empty"):
        probabilities(nn.Linear(2, 2), [])


def test_mistakes_are_the_most_confident_wrong_ones() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7], [0.99, 0.01]])
    y = torch.tensor([1, 1, 0, 1, 0, 0])
    assert confident_mistakes(p, y, 3) == [0, 2, 3]  # 3 and 4 tie: the earlier image first
    assert confident_mistakes(p, y, 99) == [0, 2, 3, 4, 1]
    assert confident_mistakes(torch.eye(2), torch.arange(2), 5) == []


def dropped_out() -> MlpMixer:
    torch.manual_seed(0)
    config = variant("N/7", in_channels=1, num_classes=3, dropout=0.5, drop_path=0.5)
    model = MlpMixer(config)
    nn.init.normal_(model.head.weight)
    return model


def test_probabilities_are_of_the_model_at_rest() -> None:
    """Batches do not matter, dropout is off, and every training flag is put back."""
    model = dropped_out().train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    images, labels = torch.randn(7, 1, 28, 28), torch.arange(7) % 3
    p, y = probabilities(model, zip(images.split(3), labels.split(3), strict=True))
    assert [module.training for module in model.modules()] == before
    with torch.no_grad():
        wanted = model.eval()(images).softmax(dim=1)
    torch.testing.assert_close(p, wanted, rtol=1e-5, atol=1e-6)
    assert (p.dtype, y.dtype, p.shape) == (torch.float32, torch.int64, (7, 3))
    assert torch.equal(y, labels)


def test_training_flags_are_put_back_after_an_error() -> None:
    model = dropped_out().train()
    with pytest.raises(UserError):
        probabilities(model, [(torch.randn(1, 1, 5, 5), torch.zeros(1))])
    assert all(module.training for module in model.modules())


def test_evaluate_is_both_steps() -> None:
    model = dropped_out()
    batches = [(torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 0]))]
    assert evaluate(model, batches, names(3)) == measure(*probabilities(model, batches), names(3))
    with pytest.raises(UserError, match="4 classes"):
        evaluate(model, batches, names(4))
