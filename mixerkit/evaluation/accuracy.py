"""How good a model is on labelled images: top-1, top-5, NLL, calibration, classes, mistakes.

Letters: N images, K classes.

Class probabilities are the softmax of the logits, also for models trained with the sigmoid
loss: both rank the classes alike, so top-1, top-5 and the confusion matrix are the same;
NLL and ECE then describe the softmax of logits that were not trained for it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mixerkit.errors import UserError

ECE_BINS = 15
SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities below this count as this in the NLL: softmax in float32 may give exactly 0."""


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: `recall` is None without images of it, `precision` when it is never predicted."""

    name: str
    samples: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Accuracy:
    """Shares are in [0, 1]. `top5` counts min(5, K) classes; `nll` is in nats per image; `ece`
    is the expected calibration error over 15 equal bins of the top probability.
    `confusion[true][predicted]` counts images."""

    samples: int
    top1: float
    top5: float
    nll: float
    ece: float
    per_class: tuple[ClassAccuracy, ...]
    confusion: list[list[int]]


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Dropout and stochastic depth are off; every module's own training flag is put back."""
    trained = [module for module in modules if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def probabilities(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: int = 0,
    divided: bool = False,
) -> tuple[Tensor, Tensor]:
    """Softmax [N, K] (float32) and labels [N] (int64) of all batches, on the CPU. Without any image
    that is an error, or with `classes` empty tensors for so many. `divided`: whether the model's
    weights are divided among processes.

    Runs without gradients, with dropout and stochastic depth off; every module's own
    training flag is put back afterwards. Images go to the device of the model.
    """
    parameter = next(model.parameters(), None)
    like = torch.zeros(0) if parameter is None else parameter
    found: list[tuple[Tensor, Tensor]] = []
    # what a divided model gathers here it uses in training too
    grad = torch.no_grad() if divided else torch.inference_mode()
    with evaluating(model.modules()), grad:
        for images, labels in batches:
            logits_BK: Tensor = model(images.to(like.device, like.dtype))
            found.append((logits_BK.float().softmax(dim=1).cpu(), labels.long().cpu()))
    if not found and classes:
        return torch.zeros(0, classes), torch.zeros(0, dtype=torch.int64)
    if not found:
        raise UserError("There are no images to evaluate: the split is empty.")
    rows, labels_by_batch = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(labels_by_batch)


def measure(probabilities_NK: Tensor, labels_N: Tensor, class_names: Sequence[str]) -> Accuracy:
    """All figures from class probabilities and true labels.

    Of classes with equal probability the one with the lower index ranks first, so ties are
    neither counted in the model's favour nor left to chance.
    """
    p_NK, y_N = _checked(probabilities_NK, labels_N, class_names)
    p_true_N = p_NK[np.arange(len(y_N)), y_N]
    predicted_N = p_NK.argmax(axis=1)  # NumPy promises the first of equal values
    confusion_KK = _confusion(y_N, predicted_N, len(class_names))
    return Accuracy(
        samples=len(y_N),
        top1=float((predicted_N == y_N).mean()),
        top5=float((_rank(p_NK, y_N) < 5).mean()),
        nll=float(-np.log(np.maximum(p_true_N, SMALLEST)).mean()),
        ece=_ece(p_NK.max(axis=1), predicted_N == y_N),
        per_class=_per_class(confusion_KK, class_names),
        confusion=confusion_KK.tolist(),
    )


def evaluate(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], class_names: Sequence[str]
) -> Accuracy:
    """`measure` of the model's `probabilities` over a loader of (images, labels)."""
    return measure(*probabilities(model, loader), class_names)


def right(probabilities_NK: Tensor, labels_N: Tensor) -> np.ndarray:
    """1 where the likeliest class, the first of equal ones, is the label, else 0: float64 [N]."""
    guesses_N: np.ndarray = probabilities_NK.numpy().argmax(axis=1)
    return (guesses_N == labels_N.numpy()).astype(float)


def confident_mistakes(probabilities_NK: Tensor, labels_N: Tensor, count: int) -> list[int]:
    """Indices of at most `count` wrong predictions, the most confident first."""
    p_NK = probabilities_NK.double().numpy()
    wrong = np.flatnonzero(right(probabilities_NK, labels_N) == 0)
    order = np.argsort(-p_NK[wrong].max(axis=1), kind="stable")
    return [int(index) for index in wrong[order][:count]]


def _checked(
    probabilities_NK: Tensor, labels_N: Tensor, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Both as NumPy arrays (float64, int64), or an error that says what is wrong."""
    p_NK, y_N = probabilities_NK.double().cpu().numpy(), labels_N.long().cpu().numpy()
    if p_NK.shape != (len(y_N), len(class_names)) or len(y_N) == 0:
        raise UserError(
            f"Expected probabilities [images, {len(class_names)} classes] and one label for each "
            f"image, found {list(p_NK.shape)} and {list(y_N.shape)}: give the names of all the "
            f"classes that the model knows, and at least one image."
        )
    check_outputs(p_NK)
    if p_NK.min() < 0 or np.abs(p_NK.sum(axis=1) - 1).max() > 1e-3:
        raise UserError(
            "Expected probabilities that sum to 1 in each row, found other numbers: apply "
            "softmax to the logits first."
        )
    if y_N.min() < 0 or y_N.max() >= len(class_names):
        raise UserError(
            f"Expected labels from 0 to {len(class_names) - 1}, found {y_N.min()} to {y_N.max()}."
        )
    return p_NK, y_N


def check_outputs(p_NK: np.ndarray) -> None:
    """`UserError` where a model's outputs [N, K] are NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(p_NK).all(axis=1))
    if len(bad):
        raise UserError(
            f"The model's output is NaN or infinite for {len(bad)} of {len(p_NK)} images, first "
            f"for image {bad[0]}: check its weights and that its input is normalised."
        )


def _rank(p_NK: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """How many classes are placed before the true one, [N]."""
    p_true_N1 = np.take_along_axis(p_NK, y_N[:, None], axis=1)
    earlier_NK = np.arange(p_NK.shape[1]) < y_N[:, None]
    rank_N: np.ndarray = ((p_NK > p_true_N1) | ((p_NK == p_true_N1) & earlier_NK)).sum(axis=1)
    return rank_N


def _ece(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """Mean over the bins (a, b], weighted by their images, of |accuracy − confidence|
    (Guo et al. 2017, eq. 3)."""
    bin_N = np.clip(np.ceil(confidence_N * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bin_N, weights=right_N - confidence_N, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right_N))


def _confusion(y_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> np.ndarray:
    pairs = np.bincount(y_N * classes + predicted_N, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def _per_class(confusion_KK: np.ndarray, names: Sequence[str]) -> tuple[ClassAccuracy, ...]:
    right_K, true_K, predicted_K = confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0)
    return tuple(
        ClassAccuracy(name, int(true), _share(right, true), _share(right, predicted))
        for name, right, true, predicted in zip(names, right_K, true_K, predicted_K, strict=True)
    )


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
