"""Notes come when they should and only then."""

import pytest

from mixerkit.training.advice import on_progress, on_schedule
from mixerkit.training.setup import Steps

STEPS = Steps(total=100, per_epoch=20, warmup=10, log_every=1, evaluate_every=20, save_every=20)


def lengths(total: int, per_epoch: int) -> Steps:
    return Steps(total, per_epoch, 0, 1, 1, 1)


def training(losses, norm=lambda step: 1.0):
    return [
        {"split": "train", "step": step, "epoch": step / 20, "loss": loss,
         "gradient_norm": norm(step)}
        for step, loss in enumerate(losses, start=1)
    ]  # fmt: skip


def validation(nlls):
    return [
        {"split": "validation", "step": 20 * i, "epoch": float(i), "nll": nll}
        for i, nll in enumerate(nlls, start=1)
    ]


FALLING = [2.3 / (1 + step / 10) for step in range(100)]


@pytest.mark.parametrize(
    ("total", "per_epoch", "says"),
    [
        (5, 20, "75% of the images are never seen"),
        (25, 20, "5 steps into epoch 2"),
        (20, 20, None),
        (65, 20, None),
        (100, 20, None),
    ],
)
def test_a_schedule_that_does_not_fit_the_data(total, per_epoch, says):
    notes = on_schedule(lengths(total, per_epoch))
    assert says in notes["schedule"] if says else notes == {}


@pytest.mark.parametrize(
    ("nlls", "losses", "noted"),
    [
        ((0.5, 0.4, 0.45, 0.5, 0.55), FALLING, True),
        ((0.5, 0.4, 0.45, 0.5, 0.55), FALLING[:40] + [1.0] * 60, False),  # the loss rises too
        ((0.5, 0.4, 0.45, 0.401, 0.55), FALLING, False),
        ((0.5, 0.4, 0.3, 0.35, 0.4), FALLING, False),  # only twice in a row
        ((0.5, 0.4, 0.3, 0.25, 0.2), FALLING, False),
    ],
)
def test_a_growing_gap(nlls, losses, noted):
    notes = on_progress(training(losses) + validation(nlls), [], STEPS)
    assert ("overfitting" in notes) == noted
    if noted:
        assert "epoch 2 (0.400, now 0.550)" in notes["overfitting"]


@pytest.mark.parametrize(
    ("seconds", "waiting", "noted"), [(60, 0.4, True), (60, 0.1, False), (5, 0.9, False)]
)
def test_a_processor_that_waits_for_images(seconds, waiting, noted):
    timings = [{"step": 1, "seconds": seconds, "waiting": waiting}, {"step": 1, "seconds": 99.0}]
    notes = on_progress([], timings, STEPS)
    assert ("starving" in notes) == noted


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([2.3] * 20 + [3.0] * 40, "above the 2.3"),
        ([2.3] * 60, "hardly moved"),
        (FALLING[:60], None),
        ([2.3] * 15, None),  # too early to say
    ],
)
def test_a_learning_rate_at_the_edge(losses, says):
    notes = on_progress(training(losses), [], STEPS)
    assert says in notes["learning rate"] if says else "learning rate" not in notes


def test_a_gradient_that_jumps():
    rows = training(FALLING[:60], norm=lambda step: 50.0 if step == 40 else 1.0)
    assert "jumped to 50" in on_progress(rows, [], STEPS)["learning rate"]
    rows = training(FALLING[:60], norm=lambda step: 0.5 if step == 40 else 0.01)  # not worth a cut
    assert on_progress(rows, [], STEPS) == {}
    rows = training(FALLING[:60], norm=lambda step: 50.0 if step == 4 else 1.0)  # in the warm-up
    assert on_progress(rows, [], STEPS) == {}
