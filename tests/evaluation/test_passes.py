"""A model's way over a split: sizes of batches, short memory, what is counted."""

import numpy as np
import pytest
import torch
from torch import nn

from mixerkit.evaluation.interval import bootstrap
from mixerkit.evaluation.passes import MOST, batch_for, fitting, in_order, passes
from mixerkit.spec.mixer import variant


class Hungry(nn.Module):
    """Has memory for so many images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.seen = room, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images


def batches(size: int):
    data, labels = torch.randn(20, 3), torch.arange(20) % 3
    return [(data[i : i + size], labels[i : i + size]) for i in range(0, 20, size)]


def taken(model, size, counted=lambda done: None, may_shrink=False):
    """The passes of a model by batches of this size, or a smaller one."""
    return fitting(lambda size: passes(model, batches, size, counted), size, may_shrink)


def test_a_size_of_ours_is_halved_until_it_fits():
    model, counted = Hungry(5), []
    found = taken(model, 16, counted.append, may_shrink=True)
    assert model.seen[:3] == [16, 8, 4] and found.batch_size == 4
    assert counted == [4, 8, 12, 16, 20]
    assert len(found.labels) == 20 and found.images_per_second > 0 and 0 <= found.waiting <= 1


def test_a_size_that_was_asked_for_is_not():
    with pytest.raises(torch.OutOfMemoryError):
        taken(Hungry(5), 16)
    with pytest.raises(torch.OutOfMemoryError):  # there is nothing smaller
        taken(Hungry(0), 16, may_shrink=True)


def test_other_errors_are_not_taken_for_short_memory():
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        taken(Broken(), 16, may_shrink=True)


def test_parts_are_put_in_the_order_of_the_split():
    p_NK, labels_N = torch.randn(7, 3), torch.arange(7)
    parts = [(np.arange(k, 7, 3), p_NK[k::3], labels_N[k::3]) for k in range(3)]
    nothing = (np.arange(0), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    usable, found, labels = in_order([*parts, nothing])
    assert usable.tolist() == labels.tolist() == list(range(7)) and torch.equal(found, p_NK)


def test_larger_models_get_smaller_batches():
    sizes = [batch_for(variant(label)) for label in ("N/7", "S/16", "B/16", "L/16")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1] >= 1
    assert all(size & (size - 1) == 0 and size <= MOST for size in sizes)


def test_the_bootstrap_is_that_of_scipy():
    from scipy import stats

    values = np.random.default_rng(1).exponential(size=400)
    low, high = bootstrap(values, draws=4000)
    found = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2)
    expected = found.confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)
    assert high == pytest.approx(expected.high, abs=0.05 * width)
    assert bootstrap(values, draws=50) == bootstrap(values, draws=50)
    assert bootstrap(np.ones(10)) == (1.0, 1.0)
