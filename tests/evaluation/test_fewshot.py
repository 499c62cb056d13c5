"""The few-shot probe against scikit-learn, against a singular value decomposition, and against
small cases worked out by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from mixerkit.errors import UserError
from mixerkit.evaluation.fewshot import (
    PAPER_SHOTS,
    Drawn,
    FewShot,
    LinearProbe,
    Protocol,
    draw,
    fit,
    measure,
    ridge_weights,
    that_fit,
)

NAMES = ("ankle boot", "bag", "coat")
PRIMAL, DUAL, SQUARE = (60, 7), (6, 40), (12, 11)
"""(points, features): more points than dimensions, fewer, and as many with the constant one."""


def sample(points: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 features of different scales, some far from 0, and labels of all three classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(points) % 3
    x = random.normal(size=(points, features)) * random.uniform(0.01, 30, features)
    x += random.normal(size=features) * 50 + labels[:, None] * random.normal(size=features)
    return x.astype(np.float32), labels


def by_svd(x_ND: np.ndarray, y_NK: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression by singular values: V s / (s² + λ) Uᵀ y."""
    u, s, vt = np.linalg.svd(x_ND, full_matrices=False)
    return vt.T @ ((s / (s**2 + ridge))[:, None] * (u.T @ y_NK))


def prepared(x_NC: np.ndarray, by_NC: np.ndarray) -> np.ndarray:
    """As the authors do it: by the mean and (population) deviation + 1e-5, then 100 behind."""
    by = by_NC.astype(np.float64)
    center, spread = by.sum(axis=0) / len(by), np.sqrt(by.var(axis=0)) + 1e-5
    return np.column_stack([(x_NC.astype(np.float64) - center) / spread, np.full(len(x_NC), 100.0)])


@pytest.mark.parametrize("ridge", [1.0, 1024.0])
@pytest.mark.parametrize("shape", [PRIMAL, DUAL, SQUARE], ids=["primal", "dual", "square"])
def test_the_probe_is_ridge_regression(shape: tuple[int, int], ridge: float) -> None:
    x, labels = sample(*shape)
    others, _ = sample(50, shape[1], seed=1)
    probe = fit(x, labels, 3, ridge)
    own, targets = prepared(x, x), np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    for solver in ("svd", "cholesky"):
        oracle = Ridge(alpha=ridge, fit_intercept=False, solver=solver).fit(own, targets)
        assert pytest.approx(oracle.coef_, rel=1e-8, abs=1e-10) == probe.weights.T
        expected = oracle.predict(prepared(others, x))
        assert probe.scores(others) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert probe.weights == pytest.approx(by_svd(own, targets, ridge), rel=1e-8, abs=1e-10)


def test_both_forms_agree_where_one_gives_way_to_the_other() -> None:
    """Points of the same number as dimensions take the primal form, one fewer the dual one."""
    for points in (19, 20, 21):
        random = np.random.default_rng(points)
        x, y = random.normal(size=(points, 20)), random.normal(size=(points, 4))
        assert ridge_weights(x, y, 3.0) == pytest.approx(by_svd(x, y, 3.0), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("shape", [PRIMAL, DUAL], ids=["primal", "dual"])
def test_degenerate_features(shape: tuple[int, int]) -> None:
    """Constant features get no weight, twins the same one; a shot may be there twice."""
    x, labels = sample(*shape)
    x[:, 0], x[:, 1], x[:, 3] = 0.1, 0.0, x[:, 2]
    x[3] = x[0]
    probe = fit(x, labels, 3, 1024.0)
    assert not probe.weights[:2].any()
    assert probe.weights[2] == pytest.approx(probe.weights[3], rel=1e-9)
    targets = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    expected = by_svd(prepared(x, x), targets, 1024.0)
    assert probe.weights == pytest.approx(expected, rel=1e-8, abs=1e-10)
    moved = x.copy()
    moved[:, :2] += 1e6  # far from what the shots have, and of no weight
    assert probe.scores(moved) == pytest.approx(probe.scores(x), abs=1e-9)


def test_shots_that_are_all_alike_give_every_class_the_same_score() -> None:
    probe = fit(np.ones((3, 4), np.float32), np.arange(3), 3, 1024.0)
    scores = probe.scores(np.full((2, 4), 7.0))
    assert scores == pytest.approx(np.full((2, 3), scores[0, 0]), abs=1e-12)
    assert probe.classes(np.full((2, 4), 7.0)).shape == (2,)


def test_the_first_of_equal_scores_counts() -> None:
    probe = LinearProbe(np.zeros(1), np.ones(1), np.zeros((2, 3)))
    assert probe.classes(np.zeros((9000, 1))).tolist() == [0] * 9000


def test_shots_are_drawn_as_documented() -> None:
    """One generator for each seed; it shuffles class after class, and the first ones are taken."""
    labels = np.random.default_rng(7).permutation(np.repeat(np.arange(3), [30, 5, 11]))
    drawn = draw(labels, NAMES, Protocol(shots=(1, 5), seeds=4))
    assert drawn.indices.shape == (4, 3, 5) and drawn.indices.dtype == np.int64
    for seed in range(4):
        random = np.random.default_rng(seed)
        for label in range(3):
            shuffled = random.permutation(np.where(labels == label)[0])
            assert drawn.indices[seed, label].tolist() == shuffled[:5].tolist()


def test_the_same_seed_gives_the_same_shots_and_fewer_are_among_more() -> None:
    labels = np.repeat(np.arange(3), 40)
    few, many = (draw(labels, NAMES, Protocol(shots=shots)) for shots in ((5,), (1, 25)))
    assert few.indices.tolist() == many.indices[:, :, :5].tolist()
    assert len({tuple(one.ravel()) for one in many.indices}) == 3
    for one in many.indices:
        assert len(np.unique(one)) == 75 and (labels[one] == np.arange(3)[:, None]).all()


def test_the_images_of_one_probe() -> None:
    drawn = Drawn(np.array([[[8, 2], [5, 3]], [[2, 1], [5, 9]]]))
    assert drawn.images.tolist() == [1, 2, 3, 5, 8, 9]
    for seed, count, expected in ((0, 1, [8, 5]), (0, 2, [8, 2, 5, 3]), (1, 2, [2, 1, 5, 9])):
        places, labels = drawn.shots(seed, count)
        assert drawn.images[places].tolist() == expected
        assert labels.tolist() == [0] * count + [1] * count


def test_a_class_with_too_few_images_is_refused() -> None:
    labels = np.repeat(np.arange(3), [25, 9, 24])
    with pytest.raises(UserError) as error:
        draw(labels, NAMES, Protocol())
    assert "25 training images of every class" in str(error.value)
    assert "2 of the 3 classes: bag (9), coat (24)" in str(error.value)
    assert "at most 9 shots" in str(error.value)
    assert draw(labels, NAMES, Protocol(shots=(9,))).indices.shape == (3, 3, 9)
    with pytest.raises(UserError, match="take classes without images out"):
        draw(np.array([0, 2]), NAMES, Protocol(shots=(1,)))


def test_the_shots_that_fit_are_those_of_the_smallest_class() -> None:
    labels = np.repeat(np.arange(3), [25, 9, 24])
    assert that_fit(PAPER_SHOTS, labels, 3) == (1, 5)
    assert that_fit((9, 10), labels, 3) == (9,)
    assert that_fit((1, 5), labels, 4) == (1,)  # a class without images: draw says so


def test_many_classes_with_too_few_are_not_all_named() -> None:
    names = [f"class {i}" for i in range(100)]
    with pytest.raises(UserError, match=r"class 4 \(1\), …\. Add"):
        draw(np.arange(100), names, Protocol(shots=(2,)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"shots": ()}, "found none"),
        ({"shots": (0, 5)}, "from 1 on"),
        ({"shots": (5, 5)}, "each given once, found 5 5"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"ridge": 0.0}, "positive number"),
        ({"ridge": float("nan")}, "positive number"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(settings: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Protocol(**settings)


def whole(protocol: Protocol, spread: float = 1.0, seed: int = 0) -> tuple[FewShot, dict]:
    """The protocol on features of three classes, by us and step by step by the oracle."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(3, 12))
    labels, test_labels = random.permutation(np.arange(90) % 3), np.arange(60) % 3
    x = (centers[labels] + spread * random.normal(size=(90, 12))).astype(np.float32)
    test = (centers[test_labels] + spread * random.normal(size=(60, 12))).astype(np.float32)
    drawn = draw(labels, NAMES, protocol)
    found = measure(protocol, drawn, x[drawn.images], test, test_labels)
    expected = {}
    for shots in protocol.shots:
        for seed in range(protocol.seeds):
            chosen = drawn.indices[seed, :, :shots].ravel()
            own = prepared(x[chosen], x[chosen])
            targets = np.where(np.arange(3) == labels[chosen][:, None], 1.0, -1.0)
            scores = prepared(test, x[chosen]) @ by_svd(own, targets, protocol.ridge)
            expected[shots, seed] = float((scores.argmax(axis=1) == test_labels).mean())
    return found, expected


def test_the_protocol_from_end_to_end() -> None:
    found, expected = whole(Protocol())
    assert {(p.shots, p.seed): p.accuracy for p in found.probes} == expected
    assert len(expected) == 12 and (found.samples, found.classes, found.chance) == (60, 3, 1 / 3)
    assert [one.shots for one in found.averages] == [1, 5, 10, 25]
    for one in found.averages:
        values = [accuracy for (shots, _), accuracy in expected.items() if shots == one.shots]
        assert one.mean == pytest.approx(np.mean(values))
        assert (one.half_width is None) == (len(set(values)) == 1)
        if one.half_width is not None:
            low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
            assert one.half_width == pytest.approx((high - low) / 2, rel=2e-3)
    assert sum(one.half_width is not None for one in found.averages) > 1
    assert found.averages[-1].mean > found.averages[0].mean


def test_features_without_information_are_at_chance_and_clear_ones_are_perfect() -> None:
    clear, _ = whole(Protocol(shots=(1,)), spread=1e-3)
    assert [probe.accuracy for probe in clear.probes] == [1.0] * 3
    noise, _ = whole(Protocol(shots=(5,), seeds=20), spread=1e6)
    assert noise.averages[0].mean == pytest.approx(1 / 3, abs=0.1)


def test_one_seed_has_no_interval() -> None:
    found, _ = whole(Protocol(shots=(5,), seeds=1))
    one = found.averages[0]
    assert one.half_width is one.interval is None and one.no_interval == "a single draw"


def test_draws_that_are_the_same_set_have_no_interval() -> None:
    """Four images of each class: four shots are all of them, in another order in every draw."""
    labels = np.arange(12) % 3
    x = np.random.default_rng(0).normal(size=(12, 5)) + 0.2 * labels[:, None]
    drawn = draw(labels, NAMES, protocol := Protocol(shots=(2, 4)))
    assert not drawn.same(2) and drawn.same(4)
    two, four = measure(protocol, drawn, x[drawn.images], x, labels).averages
    assert four.half_width is four.interval is None and "same images" in four.no_interval
    assert two.interval is not None and two.no_interval == ""


def test_equal_accuracies_of_different_draws_are_no_interval_of_no_width() -> None:
    one = whole(Protocol(shots=(1,)), spread=1e-3)[0].averages[0]
    assert one.mean == 1 and one.half_width is one.interval is None
    assert "by chance" in one.no_interval


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["shots", "images"])
def test_features_that_are_not_finite_are_refused(value: float, which: str) -> None:
    protocol = Protocol(shots=(1,), seeds=1)
    features = {"shots": np.ones((3, 4), np.float32), "images": np.ones((5, 4), np.float32)}
    features[which][1, 2] = value
    drawn = draw(np.arange(3), NAMES, protocol)
    with pytest.raises(UserError, match=r"NaN or infinite for 1 of \d images, first for image 1"):
        measure(protocol, drawn, features["shots"], features["images"], np.zeros(5, np.int64))


def test_nothing_to_measure_on_is_refused() -> None:
    protocol = Protocol(shots=(1,), seeds=1)
    drawn = draw(np.arange(3), NAMES, protocol)
    with pytest.raises(UserError, match="no images to measure on"):
        measure(protocol, drawn, np.ones((3, 4)), np.ones((0, 4)), np.zeros(0, np.int64))


def test_every_probe_is_told_to_who_watches() -> None:
    protocol, told = Protocol(shots=(1, 2), seeds=2), []
    drawn = draw(np.arange(6) % 3, NAMES, protocol)
    x = np.random.default_rng(0).normal(size=(len(drawn.images), 4))
    measure(protocol, drawn, x, x[:3], np.arange(3), told.append)
    assert told == [1, 2, 3, 4]
