"""Seconds of the transfer protocol: by closed-form costs and the time of a step."""

from dataclasses import replace

import pytest

from mixerkit.model.cost import cost
from mixerkit.spec.fine_tuning import PAPER_RECIPES
from mixerkit.spec.mixer import variant
from mixerkit.study import transfer_time
from mixerkit.study.transfer_plan import Planned
from mixerkit.study.transfer_suite import Task

TINY = variant("N/7", in_channels=1, num_classes=3, width=16, depth=1)
RECIPE = replace(
    PAPER_RECIPES["finetune-pets"](), model=TINY, batch_size=64, accumulation=4, precision="float32"
)


def test_the_rate_is_that_of_the_faster_step_after_the_first(monkeypatch) -> None:
    seen, times = [], iter((9.0, 0.5, 0.25))

    def seconds(update, batch):
        update(batch)
        seen.append(len(batch.images))
        return next(times)

    monkeypatch.setattr(transfer_time, "_seconds", seconds)
    found = transfer_time.macs_per_second(RECIPE)
    assert seen == [16] * 3  # a micro-batch
    assert found == pytest.approx(3 * cost(TINY).macs * 16 / 0.25)


def test_of_a_large_model_a_step_has_few_images(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(transfer_time, "MOST_MACS", 2.5 * 3 * cost(TINY).macs)
    monkeypatch.setattr(transfer_time, "device_here", lambda: transfer_time.torch.device("cpu"))
    monkeypatch.setattr(
        transfer_time, "_seconds", lambda update, batch: seen.append(len(batch.images)) or 1.0
    )
    transfer_time.macs_per_second(RECIPE)
    assert seen == [2] * 3


def test_seconds_are_of_all_tasks(monkeypatch) -> None:
    monkeypatch.setattr(transfer_time, "macs_per_second", lambda recipe: 100.0)
    task = Task("a", "A", RECIPE, (0.1,))
    plans = [Planned(task, 64, 10, 4, 6, 5, macs, saves=2) for macs in (1_000, 2_000)]
    found = transfer_time.expected(plans)
    assert found.training == 30
    # one rate is compared on 4 images, the best one tested on 6, forward alone
    assert found.measuring == pytest.approx(2 * (4 + 6) * cost(TINY).macs / 100)
    assert found.checkpoints == 2 * 2 * 2
    assert found.checkpoint_bytes == 8 * cost(TINY).parameters
