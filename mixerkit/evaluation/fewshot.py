"""The paper's few-shot protocol: how well a linear probe does that saw a few images of each class,
on features of a frozen model.

Letters: N images that a probe learns from (the shots), P that any probe learns from, M that are
measured, C features, D features with the constant one, K classes, R draws.

The numbers are those of the authors' code (big_vision, `evaluators/fewshot_lsr.py`): features
standardised by the shots, a constant feature of 100, targets of ±1, ridge regression in closed
form with one strength λ = 2¹⁰: none is chosen by results. They compute in float32, this in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from mixerkit.errors import UserError
from mixerkit.evaluation.features import check_finite
from mixerkit.evaluation.interval import half_width, interval_of_shares

BIAS = 100.0
"""The constant feature: so large that λ hardly touches the bias that it makes."""
LEAST_DEVIATION = 1e-5
"""Added to every feature's standard deviation."""
AT_ONCE = 4096
"""Images that are measured together, so that 1000 classes take 32 MiB."""
CLASSES_NAMED = 5
PAPER_SHOTS = (1, 5, 10, 25)


@dataclass(frozen=True)
class Protocol:
    """Few-shot as the paper measures it; 5 shots are its headline.

    `shots`: images of each class that a probe learns from. `seeds`: draws of them, by the seeds 0,
    1, …. `ridge`: λ, the weight of ‖w‖² beside the sum of squared errors.
    """

    shots: tuple[int, ...] = PAPER_SHOTS
    seeds: int = 3
    ridge: float = 2.0**10

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            found = " ".join(map(str, self.shots)) or "none"
            raise UserError(
                f"shots must be numbers of images from 1 on, each given once, found {found}."
            )
        if self.seeds < 1:
            raise UserError(f"seeds must be at least 1, found {self.seeds}.")
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise UserError(
                f"ridge must be a positive number (the paper's is 1024), found {self.ridge!r}."
            )


@dataclass(frozen=True, eq=False)
class Drawn:
    """The images that probes learn from: `indices` into a split, int64 [R, K, most shots]. A probe
    of n shots takes the first n of every class, so that fewer shots are among more."""

    indices: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """All of them, sorted, each once: int64 [P]."""
        return np.unique(self.indices)

    def shots(self, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the images of one probe stand in `images`, and their labels: int64 [N] each."""
        chosen_KN = self.indices[seed, :, :count]
        places = np.searchsorted(self.images, chosen_KN.ravel())
        return places, np.repeat(np.arange(len(chosen_KN)), count)

    def same(self, count: int) -> bool:
        """Whether a probe of `count` shots has the same images in every draw, as it has where every
        class has no more."""
        sets = np.sort(self.indices[:, :, :count], axis=2)
        return bool((sets == sets[0]).all())


def draw(labels: np.ndarray, class_names: Sequence[str], protocol: Protocol) -> Drawn:
    """The shots of a split with these labels, as the authors draw them: for every seed NumPy's
    default generator shuffles the images of one class after the other, in the classes' order.

    A class with fewer images than shots is a `UserError` (the authors' code takes what there is).
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    most = max(protocol.shots)
    _check_enough(sizes, class_names, most)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    drawn = []
    for seed in range(protocol.seeds):
        random = np.random.default_rng(seed)
        drawn.append([random.permutation(some)[:most] for some in members])
    return Drawn(np.array(drawn, dtype=np.int64))


def that_fit(shots: Sequence[int], labels: np.ndarray, classes: int) -> tuple[int, ...]:
    """Those numbers of shots that every class has training images for; the smallest at least, for
    which `draw` then says what is missing."""
    fewest = int(np.bincount(labels, minlength=classes).min())
    return tuple(count for count in shots if count <= fewest) or (min(shots),)


def _check_enough(sizes: np.ndarray, class_names: Sequence[str], most: int) -> None:
    short = np.flatnonzero(sizes < most)
    if not len(short):
        return
    named = ", ".join(f"{class_names[label]} ({sizes[label]})" for label in short[:CLASSES_NAMED])
    least = int(sizes.min())
    advice = f"take at most {least} shots" if least else "take classes without images out"
    raise UserError(
        f"{most} shots need at least {most} training images of every class, found fewer of "
        f"{len(short)} of the {len(sizes)} classes: {named}"
        f"{', …' if len(short) > CLASSES_NAMED else ''}. Add images, or {advice}."
    )


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Scores of K classes, linear in features: float64 `mean` [C], `deviation` [C] and `weights`
    [D, K], of which the last row belongs to the constant feature."""

    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray

    def scores(self, x_MC: np.ndarray) -> np.ndarray:
        """About 1 for the class of an image and -1 for the others, float64 [M, K]."""
        return _prepared(x_MC, self.mean, self.deviation) @ self.weights

    def classes(self, x_MC: np.ndarray) -> np.ndarray:
        """The class with the highest score, the first of equal ones: int64 [M]."""
        parts = [x_MC[start : start + AT_ONCE] for start in range(0, len(x_MC), AT_ONCE)]
        return np.concatenate([self.scores(part).argmax(axis=1) for part in parts])


def fit(x_NC: np.ndarray, labels_N: np.ndarray, classes: int, ridge: float) -> LinearProbe:
    """The probe that a few labelled images give. The deviation is that of the shots themselves
    (divided by N), and a feature that is the same in all of them gets the weight 0."""
    x_NC = x_NC.astype(np.float64)
    center, deviation = x_NC.mean(axis=0), x_NC.std(axis=0) + LEAST_DEVIATION
    targets_NK = 2.0 * np.eye(classes)[labels_N] - 1.0
    weights = ridge_weights(_prepared(x_NC, center, deviation), targets_NK, ridge)
    return LinearProbe(center, deviation, weights)


def _prepared(x_NC: np.ndarray, center: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Standardised, with the constant feature behind the others: float64 [N, D]."""
    standard_NC = (x_NC.astype(np.float64) - center) / deviation
    return np.hstack([standard_NC, np.full((len(x_NC), 1), BIAS)])


def ridge_weights(x_ND: np.ndarray, y_NK: np.ndarray, ridge: float) -> np.ndarray:
    """The w [D, K] with the least ‖x w − y‖² + λ ‖w‖².

    (xᵀx + λ)⁻¹ xᵀ y with at least as many points as dimensions, else the same as
    xᵀ (x xᵀ + λ)⁻¹ y: the smaller of two systems.
    """
    points, dimensions = x_ND.shape
    if points >= dimensions:
        return np.linalg.solve(x_ND.T @ x_ND + ridge * np.eye(dimensions), x_ND.T @ y_NK)
    return x_ND.T @ np.linalg.solve(x_ND @ x_ND.T + ridge * np.eye(points), y_NK)


@dataclass(frozen=True)
class Probe:
    """One probe: the share of the measured images that it names rightly."""

    shots: int
    seed: int
    accuracy: float


@dataclass(frozen=True)
class Average:
    """The probes of so many shots: mean accuracy, and its 95 % interval over the draws, which says
    nothing of other weights or other test images. `half_width` is that of Student's t, `interval`
    ends at 0 and 1; both are None where `no_interval` says why, which else is empty."""

    shots: int
    mean: float
    half_width: float | None
    interval: tuple[float, float] | None
    no_interval: str


@dataclass(frozen=True)
class FewShot:
    """What the protocol came to. `samples`: images measured. `chance`: the accuracy of guessing
    among the classes."""

    samples: int
    classes: int
    chance: float
    averages: tuple[Average, ...]
    probes: tuple[Probe, ...]


def measure(
    protocol: Protocol,
    drawn: Drawn,
    shots_PC: np.ndarray,
    images_MC: np.ndarray,
    labels_M: np.ndarray,
    watch: Callable[[int], None] = lambda done: None,
) -> FewShot:
    """All probes of a protocol, from the features of `drawn.images` and of the measured images.

    `watch` is told how many probes are done. Features that are NaN or infinite, and no image to
    measure on, are a `UserError`.
    """
    if not len(images_MC):
        raise UserError("There are no images to measure on: the split is empty.")
    check_finite(shots_PC)
    check_finite(images_MC)
    probes = []
    for probe in _probes(protocol, drawn, shots_PC, images_MC, labels_M):
        probes.append(probe)
        watch(len(probes))
    classes = drawn.indices.shape[1]
    averages = tuple(_average(count, probes, drawn) for count in protocol.shots)
    return FewShot(len(images_MC), classes, 1 / classes, averages, tuple(probes))


def _probes(
    protocol: Protocol,
    drawn: Drawn,
    shots_PC: np.ndarray,
    images_MC: np.ndarray,
    labels_M: np.ndarray,
) -> Iterator[Probe]:
    classes = drawn.indices.shape[1]
    for count in protocol.shots:
        for seed in range(protocol.seeds):
            places, labels_N = drawn.shots(seed, count)
            probe = fit(shots_PC[places], labels_N, classes, protocol.ridge)
            right_M = probe.classes(images_MC) == labels_M
            yield Probe(count, seed, float(right_M.mean()))


def _average(count: int, probes: Sequence[Probe], drawn: Drawn) -> Average:
    values = [probe.accuracy for probe in probes if probe.shots == count]
    if why := _no_interval(values, drawn.same(count)):
        return Average(count, mean(values), None, None, why)
    return Average(count, mean(values), half_width(values), interval_of_shares(values), "")


def _no_interval(values: Sequence[float], same_images: bool) -> str:
    """Why draws say nothing of how others would spread; empty where they do."""
    if len(values) < 2:
        return "a single draw"
    if same_images:
        return "the same images in every draw, for no class has others"
    return "the same accuracy in every draw, by chance" if len(set(values)) == 1 else ""
