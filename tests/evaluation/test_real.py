"""ReaL accuracy against sums by hand and a loop in plain Python."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from mixerkit.data.real import real_file, real_labels
from mixerkit.data.sources import open_source
from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import measure
from mixerkit.evaluation.interval import bootstrap
from mixerkit.evaluation.real import measure_real
from tests.miniature.amount import Amount
from tests.miniature.imagenet import write_imagenet


def test_by_hand() -> None:
    """Right, right by the second label, no label, wrong: two of three."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1], [0.2, 0.5, 0.3]])
    found = measure_real(p, [{0}, {1, 2}, set(), {0, 2}])
    assert (found.samples, found.left_out) == (3, 1) and found.top1 == pytest.approx(2 / 3)


def by_loop(rows: Sequence[Sequence[float]], sets: Sequence[set[int]]) -> tuple[int, int]:
    """How many are right, of how many."""
    right = counted = 0
    for row, labels in zip(rows, sets, strict=True):
        if labels:
            counted += 1
            best = 0
            for place in range(len(row)):
                if row[place] > row[best]:
                    best = place
            right += best in labels
    return right, counted


@given(st.integers(1, 7), st.data())
def test_as_a_loop_says(classes: int, data: st.DataObject) -> None:
    """Few values, so that many are equal."""
    row = st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=classes, max_size=classes)
    image = st.tuples(row, st.sets(st.integers(0, classes - 1)))
    images = data.draw(st.lists(image, min_size=1, max_size=20))
    rows, sets = zip(*images, strict=True)
    if not any(sets):
        return
    right, counted = by_loop(rows, sets)
    found = measure_real(torch.tensor(rows), sets)
    assert (found.samples, found.left_out) == (counted, len(rows) - counted)
    assert found.top1 == pytest.approx(right / counted)


def test_of_equal_values_the_first_class_counts() -> None:
    p = torch.full((2, 4), 0.25)
    assert measure_real(p, [{0, 3}, {1, 2, 3}]).top1 == 0.5


def test_with_one_label_each_it_is_top_1() -> None:
    p = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels = torch.arange(50) % 6
    expected = measure(p, labels, [f"{k}" for k in range(6)]).top1
    assert measure_real(p, [{label} for label in labels.tolist()]).top1 == pytest.approx(expected)


def test_the_interval_is_that_of_the_images_with_a_label() -> None:
    sets = [{0}] * 30 + [{1}] * 10 + [set()] * 60
    found = measure_real(torch.tensor([[1.0, 0.0]]).repeat(100, 1), sets)
    assert found.top1_interval == bootstrap(np.array([1.0] * 30 + [0.0] * 10))
    assert found.top1_interval[0] < 0.75 < found.top1_interval[1]
    assert found.top1_interval_by == "bootstrap"
    right = measure_real(torch.tensor([[1.0, 0.0]]).repeat(40, 1), [{0}] * 40)
    assert right.top1_interval == (pytest.approx(0.9124, abs=1e-4), 1.0)
    assert right.top1_interval_by == "wilson"


def test_imagenet_s_own_labels_are_not_all_right(tmp_path) -> None:
    """Of ten miniature images one has no label, and one another than its own."""
    write_imagenet(tmp_path / "imagenet", Amount(classes=5, train=1, test=8, side=8))
    test = open_source("imagenet", str(tmp_path)).test
    assert test is not None
    own = torch.eye(5)[torch.from_numpy(test.labels)]
    found = measure_real(own, real_labels(test, real_file(test)))
    assert (found.samples, found.left_out) == (36, 4) and found.top1 == pytest.approx(32 / 36)


@pytest.mark.parametrize(
    ("p", "sets", "says"),
    [
        ([[0.5, math.nan]], [{0}], "NaN or infinite for 1 of 1 images"),
        ([[0.5, 0.5], [math.inf, 0]], [{0}, set()], "first for image 1"),
        ([[0.5, 0.5]], [{0, 2}], "labels from 0 to 1, found 2"),
        ([[0.5, 0.5]], [{-1}], "labels from 0 to 1, found -1"),
        ([[0.5, 0.5]], [{0}, {1}], "one set of labels for each image"),
        ([0.5, 0.5], [{0}, {1}], "probabilities .images, classes."),
        ([[0.5, 0.5]], [set()], "at least one image that has a label"),
    ],
)
def test_bad_input_is_refused(p: list, sets: list[set[int]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        measure_real(torch.tensor(p), sets)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        measure_real(torch.empty(0, 2), [])
