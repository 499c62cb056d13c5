"""Accuracy figures against torchmetrics and scikit-learn, on random and on degenerate inputs."""

from dataclasses import dataclass

import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_precision,
)

from mixerkit.evaluation.accuracy import ECE_BINS, Accuracy, measure


@dataclass(frozen=True)
class Case:
    p: Tensor
    y: Tensor
    ties: bool = False

    @property
    def classes(self) -> int:
        return self.p.shape[1]

    def found(self) -> Accuracy:
        return measure(self.p, self.y, [f"class {i}" for i in range(self.classes)])


def drawn(images: int, classes: int, sharpness: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(images + classes)
    logits = sharpness * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return Case(logits.softmax(dim=1), torch.randint(classes, (images,), generator=generator))


def relabelled(case: Case, label_of: dict[int, int]) -> Case:
    return Case(case.p, torch.tensor([label_of.get(int(y), int(y)) for y in case.y]))


def only_in_halves(case: Case) -> Case:
    """Probabilities of a few levels: most images have classes that tie."""
    p_NK = (case.p * 4).ceil()
    return Case(p_NK / p_NK.sum(dim=1, keepdim=True), case.y, ties=True)


CASES = {
    "two classes": drawn(997, 2),
    "seven classes": drawn(1000, 7, sharpness=2),
    "a thousand classes": drawn(400, 1000, sharpness=4),
    "one image": drawn(1, 9),
    "nearly certain": drawn(300, 8, sharpness=6),
    "all labels alike": relabelled(drawn(300, 6), dict.fromkeys(range(6), 2)),
    "a class without images": relabelled(drawn(500, 8), {3: 4}),
    "the last class without images": relabelled(drawn(500, 8), {7: 0}),
    "a class that is never predicted": Case(
        torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.65, 0.1]], dtype=torch.float64).repeat(9, 1),
        torch.arange(18) % 3,
    ),
    "ties": only_in_halves(drawn(600, 9)),
    "nothing but ties": Case(
        torch.full((60, 12), 1 / 12, dtype=torch.float64), torch.arange(60) % 12, ties=True
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@each_case
def test_agrees_with_torchmetrics(case: Case) -> None:
    found, given, classes = case.found(), (case.p, case.y), case.classes
    top1 = multiclass_accuracy(*given, classes, average="micro")
    assert found.top1 == pytest.approx(top1.item(), abs=1e-6)
    if not case.ties and classes > 5:  # its order of ties is not defined
        top5 = multiclass_accuracy(*given, classes, average="micro", top_k=5)
        assert found.top5 == pytest.approx(top5.item(), abs=1e-6)
    assert found.confusion == multiclass_confusion_matrix(*given, classes).tolist()
    ece = multiclass_calibration_error(*given, classes, n_bins=ECE_BINS)
    assert found.ece == pytest.approx(ece.item(), abs=1e-6)
    recall = multiclass_accuracy(*given, classes, average="none").tolist()
    assert [row.recall or 0 for row in found.per_class] == pytest.approx(recall, abs=1e-6)
    precision = multiclass_precision(*given, classes, average="none").tolist()
    assert [row.precision or 0 for row in found.per_class] == pytest.approx(precision, abs=1e-6)


@each_case
def test_agrees_with_scikit_learn(case: Case) -> None:
    found, labels = case.found(), range(case.classes)
    p_NK, y_N = case.p.double().numpy(), case.y.numpy()
    predicted_N = p_NK.argmax(axis=1)
    assert found.samples == len(y_N)
    assert found.top1 == pytest.approx(metrics.accuracy_score(y_N, predicted_N), abs=1e-12)
    assert found.nll == pytest.approx(metrics.log_loss(y_N, p_NK, labels=labels), rel=1e-9)
    wanted = metrics.confusion_matrix(y_N, predicted_N, labels=labels)
    assert found.confusion == wanted.tolist()
    parts = metrics.precision_recall_fscore_support(
        y_N, predicted_N, labels=labels, zero_division=0
    )
    precision, recall, _, samples = (column.tolist() for column in parts)
    assert [row.precision or 0 for row in found.per_class] == pytest.approx(precision, abs=1e-12)
    assert [row.recall or 0 for row in found.per_class] == pytest.approx(recall, abs=1e-12)
    assert [row.samples for row in found.per_class] == samples


@each_case
def test_top5_agrees_with_scikit_learn(case: Case) -> None:
    """Of equal probabilities it places the last first and we the first: so it gets the classes
    in the opposite order."""
    if case.classes <= 5:
        assert case.found().top5 == 1
        return
    last, labels = case.classes - 1, range(case.classes)
    p_NK, y_N = case.p.double().numpy()[:, ::-1], last - case.y.numpy()
    top5 = metrics.top_k_accuracy_score(y_N, p_NK, k=5, labels=labels)
    assert case.found().top5 == pytest.approx(top5, abs=1e-12)


def test_a_single_class() -> None:
    """Neither library takes one class alone; whoever knows one answer is right."""
    found = Case(torch.ones(5, 1), torch.zeros(5, dtype=torch.int64)).found()
    assert (found.top1, found.top5, found.nll, found.ece) == (1, 1, 0, 0)
    assert found.confusion == [[5]]
