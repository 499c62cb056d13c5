"""Poisoned batches: nothing is changed by them, and each policy does what it says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import NotFinite
from mixerkit.training.loop import train
from mixerkit.training.update import Update
from tests.training.runs import RECIPE, StopAt, assert_same_end

POISONED = (11, 12, 25)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the second micro-batch of the poisoned steps is infinite, whoever computes it."""
    healthy = Update.loss_of

    def loss_of(update, model: nn.Module, part, weight=None):
        loss = healthy(update, model, part, weight)
        update.count = getattr(update, "count", 0) + 1
        second = update.count % 2 == 0
        return loss * float("inf") if second and update.state.step + 1 in POISONED else loss

    monkeypatch.setattr(Update, "loss_of", loss_of)


def rows(run: Path, split: str) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["split"] == split]


def recipe(policy: str, limit: int = 10):
    return replace(RECIPE, not_finite=NotFinite(policy, limit), compile="off")


def test_stopping_keeps_what_was_saved(poison, tmp_path):
    with pytest.raises(RunFailed, match=r"loss became inf .* step 11"):
        train(recipe("stop"), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000007"]


def test_skipping_leaves_weights_and_optimisers_as_they_were(poison, tmp_path, monkeypatch):
    seen: list[int] = []
    healthy = Update.__call__

    def call(update, batch):
        step = update.state.step + 1
        before = {name: t.clone() for name, t in update.state.tensors().items()}
        try:
            return healthy(update, batch)
        finally:
            if step in POISONED:
                seen.append(step)
                after = update.state.tensors()
                assert after.keys() == before.keys()
                assert all(torch.equal(after[name], before[name]) for name in before)

    monkeypatch.setattr(Update, "__call__", call)
    result = train(recipe("skip"), tmp_path / "run")
    assert result.steps == 30 and tuple(seen) == POISONED
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == list(POISONED)
    trained = [row["step"] for row in rows(tmp_path / "run", "train")]
    assert trained == [step for step in range(1, 31) if step not in POISONED]


def test_rolling_back_goes_on_from_the_checkpoint_without_the_batch(poison, tmp_path):
    watch = StopAt(10**8, 0)
    train(recipe("roll back"), tmp_path / "run", watch=watch)
    train(recipe("skip"), tmp_path / "skipped")
    went_back = [line for line in watch.lines if "left out" in line]
    assert [line.split("going on from ")[1].split(".")[0] for line in went_back] == [
        "step 7", "step 7", "step 21",
    ]  # fmt: skip
    model = "model/model.safetensors"
    rolled, skipped = (tmp_path / name / model for name in ("run", "skipped"))
    assert rolled.read_bytes() == skipped.read_bytes()  # the same batches had the same effect


def test_rolling_back_before_the_first_save_starts_again(poison, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", (2,))
    result = train(recipe("roll back"), tmp_path / "run")
    assert result.steps == 30
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == [2]


@pytest.mark.parametrize("policy", ["skip", "roll back"])
def test_more_than_the_limit_stop_the_run(poison, tmp_path, policy):
    with pytest.raises(RunFailed, match="step 25"):
        train(recipe(policy, limit=2), tmp_path / "run")


@pytest.mark.parametrize("policy", ["skip", "roll back"])
def test_policies_survive_interruptions(poison, tmp_path, policy, monkeypatch):
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    train(recipe(policy), tmp_path / "straight")
    for attempt, stop in enumerate((10, 12, 20, 27, 99)):
        train(recipe(policy), tmp_path / "run", resume=attempt > 0, watch=StopAt(stop, 15))
    assert_same_end(tmp_path / "straight", tmp_path / "run")
