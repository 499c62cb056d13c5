"""Signals in every phase of a run: saved where it stands, and the end is the same."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from mixerkit.evaluation import accuracy
from mixerkit.spec.recipe import Save
from mixerkit.training import measuring
from mixerkit.training.loop import train
from mixerkit.training.update import Update
from tests.training.runs import RECIPE, assert_same_end


def raise_signal_at(call: int, function):
    """`function`, which sends this process a SIGTERM when it is called for the `call`-th time."""
    calls = iter(range(1, 10**6))

    def wrapped(*arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return wrapped


def resume_to_the_end(run: Path) -> None:
    assert train(RECIPE, run, resume=True).interrupted == 0


def test_between_micro_batches(straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        # two micro-batches a step: the signal comes with the first one of step 10
        patch.setattr(Update, "loss_of", raise_signal_at(7 + 2 * 9 + 1, Update.loss_of))
        result = train(RECIPE, tmp_path / "run")
    assert (result.interrupted, result.steps) == (signal.SIGTERM, 9)
    resume_to_the_end(tmp_path / "run")
    assert_same_end(straight, tmp_path / "run")


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4])
def test_during_evaluation(straight, tmp_path, monkeypatch, evaluation):
    """Of the held-out images after each epoch, and of the test images at the end."""
    with monkeypatch.context() as patch:
        found = raise_signal_at(evaluation, accuracy.probabilities)
        patch.setattr(measuring, "probabilities", found)
        result = train(RECIPE, tmp_path / "run")
    assert (result.interrupted, result.steps) == (signal.SIGTERM, min(10 * evaluation, 30))
    resume_to_the_end(tmp_path / "run")
    assert_same_end(straight, tmp_path / "run")


def test_while_the_choice_to_compile_is_measured(straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Update, "loss_of", raise_signal_at(3, Update.loss_of))
        result = train(RECIPE, tmp_path / "run")
    assert (result.interrupted, result.steps) == (signal.SIGTERM, 0)
    resume_to_the_end(tmp_path / "run")
    assert_same_end(straight, tmp_path / "run")


def test_while_saving(straight, tmp_path, monkeypatch):
    from mixerkit.checkpoint import checkpoints

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_tensors", raise_signal_at(2, checkpoints.write_tensors))
        result = train(RECIPE, tmp_path / "run")
    assert (result.interrupted, result.steps) == (signal.SIGTERM, 14)
    resume_to_the_end(tmp_path / "run")
    assert_same_end(straight, tmp_path / "run")


def test_training_time_adds_up_over_resumes(tmp_path, monkeypatch):
    recipe = replace(RECIPE, save=Save(every="7 steps"))
    with monkeypatch.context() as patch:
        patch.setattr(Update, "loss_of", raise_signal_at(7 + 30, Update.loss_of))
        first = train(recipe, tmp_path / "run")
    second = train(recipe, tmp_path / "run", resume=True)
    assert 0 < first.seconds < second.seconds
