"""Holding out: exact, in proportion, disjoint, and a function of the split seed alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mixerkit.data.splits import ImageSplit, Splits, hold_out, thin_out
from mixerkit.errors import UserError


def source(sizes: list[int]) -> Splits:
    """Classes of these sizes; image i is i, in a shuffled order of classes."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"class {i}" for i in range(len(sizes)))
    return Splits(ImageSplit("small", names, labels, images), None, None, "here")


def ids(split: ImageSplit) -> list[int]:
    return split.images.reshape(-1).tolist()


def test_a_share_of_each_class_exactly():
    splits = source([20, 40, 60])
    held = hold_out(splits, 0.25, 0)
    assert np.bincount(held.validation.labels).tolist() == [5, 10, 15]
    assert np.bincount(held.train.labels).tolist() == [15, 30, 45]
    assert sorted(ids(held.train) + ids(held.validation)) == list(range(120))
    for split in (held.train, held.validation):
        np.testing.assert_array_equal(split.labels, splits.train.labels[ids(split)])


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(1, 60), st.integers(0, 9))
def test_the_total_is_exact_and_no_class_is_more_than_one_off(sizes, count, seed):
    splits = source(sizes)
    if count > sum(sizes) - len(sizes):
        with pytest.raises(UserError, match="every class keeps one"):
            hold_out(splits, count, seed)
        return
    held = np.bincount(hold_out(splits, count, seed).validation.labels, minlength=len(sizes))
    assert held.sum() == count and (held < np.array(sizes)).all()
    shares = np.array(sizes) * count / sum(sizes)
    if (shares < np.array(sizes) - 1).all():
        assert (np.abs(held - shares) < 1).all()


def test_the_split_seed_decides():
    splits = source([100, 100])
    first, again, other = (ids(hold_out(splits, 50, seed).validation) for seed in (0, 0, 1))
    assert first == again and first != other
    assert len(set(first) & set(other)) < 25


def test_nothing_held_out_is_the_source_as_it_is():
    splits = source([2, 2])
    assert hold_out(splits, 0, 0) is splits


def test_a_sources_own_validation_split():
    own = source([4, 4])
    with_own = replace(own, validation=own.train)
    held = hold_out(with_own, 2, 0)
    assert held.test is own.train and len(held.validation) == 2
    assert "its own validation split is the test split" in held.origin
    with pytest.raises(UserError, match=r"set data\.holdout to 0"):
        hold_out(replace(with_own, test=own.train), 2, 0)


@pytest.mark.parametrize("holdout", [0.01, 0.99, 100])
def test_shares_that_leave_nothing(holdout):
    with pytest.raises(UserError, match=r"data\.holdout"):
        hold_out(source([4, 4]), holdout, 0)


def test_a_share_of_the_training_images_lies_inside_a_larger_one():
    splits = source([30, 60, 90])
    assert thin_out(splits, 1.0, 0) is splits
    shares = [thin_out(splits, share, 3).train for share in (0.01, 0.1, 0.5)]
    assert [np.bincount(train.labels).tolist() for train in shares] == [
        [1, 1, 1], [3, 6, 9], [15, 30, 45],
    ]  # fmt: skip
    few, some, half = (set(ids(train)) for train in shares)
    assert few < some < half
    other = set(ids(thin_out(splits, 0.5, 4).train))
    assert other != half


SHARES = st.lists(st.floats(0.001, 1), min_size=2, max_size=2)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), SHARES)
def test_every_class_keeps_an_image_and_its_part(sizes, shares):
    few, more = (thin_out(source(sizes), share, 0).train for share in sorted(shares))
    assert set(ids(few)) <= set(ids(more))
    for train, share in zip((few, more), sorted(shares), strict=True):
        kept = np.bincount(train.labels, minlength=len(sizes))
        assert (kept >= 1).all() and kept.sum() == max(len(sizes), round(share * sum(sizes)))
        spare = kept - share * np.array(sizes)
        assert kept.sum() == len(sizes) or (np.abs(spare) <= len(sizes)).all()
