"""Signals in every phase of a run: saved where it stands, and the end is the same."""

import os
import signal
from dataclasses import replace

import pytest

from mixerkit.checkpoint import checkpoints
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


@pytest.fixture
def stopped_at(straight, tmp_path, monkeypatch):
    """Trains with a signal at the `call`-th call of `owner.name`, resumes to the end, compares with
    the run that nothing happened to, and gives the step that was reached."""

    def stopped(owner: object, name: str, call: int) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raise_signal_at(call, getattr(owner, name)))
            result = train(RECIPE, tmp_path / "run")
        assert result.interrupted == signal.SIGTERM
        assert train(RECIPE, tmp_path / "run", resume=True).interrupted == 0
        assert_same_end(straight, tmp_path / "run")
        return result.steps

    return stopped


def test_between_micro_batches(stopped_at):
    # two micro-batches a step: the signal comes with the first one of step 10
    assert stopped_at(Update, "loss_of", 7 + 2 * 9 + 1) == 9


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4])
def test_during_evaluation(stopped_at, evaluation):
    """Of the held-out images after each epoch, and of the test images at the end."""
    assert stopped_at(measuring, "probabilities", evaluation) == min(10 * evaluation, 30)


def test_an_evaluation_that_a_signal_stopped_counts_in_the_checkpoint_of_its_step(
    tmp_path, monkeypatch
):
    """The checkpoint is saved by the signal before the accuracy is known, and again after it."""
    recipe = replace(RECIPE, save=replace(RECIPE.save, every=RECIPE.evaluate.every))
    train(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "probabilities", raise_signal_at(2, measuring.probabilities))
        assert train(recipe, tmp_path / "stopped").steps == 20
    train(recipe, tmp_path / "stopped", resume=True)
    left, right = [
        {path.relative_to(run): path.read_bytes() for path in (run / "checkpoints").rglob("*.*")}
        for run in (tmp_path / "straight", tmp_path / "stopped")
    ]
    assert left == right


def test_while_the_choice_to_compile_is_measured(stopped_at):
    assert stopped_at(Update, "loss_of", 3) == 0


def test_while_saving(stopped_at):
    assert stopped_at(checkpoints, "write_tensors", 2) == 14


def test_training_time_adds_up_over_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Update, "loss_of", raise_signal_at(7 + 30, Update.loss_of))
        first = train(RECIPE, tmp_path / "run")
    second = train(RECIPE, tmp_path / "run", resume=True)
    assert 0 < first.seconds < second.seconds
