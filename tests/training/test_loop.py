"""Whole runs on a few real images: repeatable, resumable, honest about what they did."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import RunFailed, UserError
from mixerkit.evaluation.accuracy import measure
from mixerkit.spec.recipe import Augment, Data, Optimizer, Save
from mixerkit.training import measuring
from mixerkit.training.loop import train
from mixerkit.training.plan import plan
from mixerkit.training.progress import Progress
from tests.training.runs import RECIPE, StopAt, assert_same_end, final_tensors


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    straight: Path, tmp_path: Path
) -> None:
    train(RECIPE, tmp_path / "again")
    assert_same_end(straight, tmp_path / "again")
    train(replace(RECIPE, seed=1), tmp_path / "other")
    assert not torch.equal(
        final_tensors(straight)["model.head.weight"],
        final_tensors(tmp_path / "other")["model.head.weight"],
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    straight: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    out = tmp_path / "run"
    for attempt, stop in enumerate((4, 13, 22)):
        result = train(RECIPE, out, resume=attempt > 0, watch=StopAt(stop, number))
        assert result.interrupted == number
        assert stop <= result.steps < 30
        assert not (out / "evaluation.json").exists()
    result = train(RECIPE, out, resume=True)
    assert result.interrupted == 0
    assert_same_end(straight, out)


def test_a_run_killed_between_saves_ends_with_the_same_bits(straight: Path, tmp_path: Path) -> None:
    """Steps after the last save are lost with the process and computed again."""

    class Killed(BaseException):
        pass

    class KillAt(StopAt):
        def progress(self, now: Progress) -> None:
            if now.step >= self.step:
                raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
        train(RECIPE, out, watch=KillAt(18, 0))
    train(RECIPE, out, resume=True)
    assert_same_end(straight, out)


def test_metrics_hold_each_step_once_and_the_test_only_once(straight: Path) -> None:
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    training = [row["step"] for row in rows if row["split"] == "train"]
    assert training == list(range(1, 31))
    assert [row["step"] for row in rows if row["split"] == "validation"] == [10, 20, 30]
    assert [row["step"] for row in rows if row["split"] == "test"] == [30]


def test_the_kept_model_is_the_averaged_one_and_predicts_as_measured(straight: Path) -> None:
    model = load(straight)
    tensors = final_tensors(straight)
    assert torch.equal(model.head.weight, tensors["ema.head.weight"])
    assert not torch.equal(model.head.weight, tensors["model.head.weight"])
    assert model.preprocess is not None
    assert model.preprocess.class_names[0] == "T-shirt/top"


def test_the_checkpoint_with_the_best_held_out_accuracy_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.3, 0.7, 0.5, 0.7, 0.6, 0.4])
    monkeypatch.setattr(
        "mixerkit.training.measuring.measure",
        lambda *arguments: replace(measure(*arguments), top1=next(accuracies, 0.1)),
    )
    recipe = replace(RECIPE, save=Save(every="10 steps"), duration="6 epochs")
    train(recipe, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000020", "step-00000050", "step-00000060"]


def test_learning_happens(tmp_path: Path) -> None:
    longer = replace(
        RECIPE, augment=Augment(flip=False), accumulation=1, duration="15 epochs",
        ema=0.0, model=replace(RECIPE.model, dropout=0.0, drop_path=0.0),
    )  # fmt: skip
    result = train(longer, tmp_path / "run")
    assert result.test is not None
    assert result.test.top1 > 0.5  # chance is 0.1
    with RunFolder.open(tmp_path / "run") as run:
        evaluation = run.evaluation()
    assert evaluation is not None
    assert np.sum(evaluation["confusion"]) == evaluation["figures"]["samples"] == 200
    mistakes = evaluation["mistakes"]
    assert all(row["true"] != row["predicted"] for row in mistakes)
    assert mistakes[0]["probability"] == max(row["probability"] for row in mistakes)


def test_a_run_that_diverges_stops_and_says_what_to_try(tmp_path: Path) -> None:
    wild = replace(RECIPE, optimizer=Optimizer(name="sgd", lr=1e30), ema=0.0, accumulation=1)
    with pytest.raises(RunFailed, match=r"optimizer\.lr"):
        train(wild, tmp_path / "run")


def test_the_rows_of_a_run_that_diverges_can_be_read_again(tmp_path: Path) -> None:
    """Its figures are huge, and finite still."""
    wild = Optimizer(name="sgd", lr=1e25, momentum=0.0)
    recipe = replace(
        RECIPE, optimizer=wild, ema=0.0, accumulation=1, save=Save(every="1 step"), compile="off"
    )
    for resume in (False, True):
        with pytest.raises(RunFailed, match=r"mixer train --resume"):
            train(recipe, tmp_path / "run", resume=resume)


def test_a_run_is_not_resumed_with_another_recipe_or_other_images(
    straight: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="other settings of seed"):
        train(replace(RECIPE, seed=5), straight, resume=True)
    fewer = tmp_path / "photos"
    for name, grey in (("dark", 10), ("light", 200)):
        (fewer / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (28, 28), grey + i).save(fewer / name / f"{i}.png")
    recipe = replace(
        RECIPE, data=Data(source=str(fewer), holdout=4), batch_size=4, duration="2 epochs",
        save=Save(), model=replace(RECIPE.model, num_classes=2),
    )  # fmt: skip
    train(recipe, tmp_path / "run")
    (fewer / "dark" / "7.png").unlink()
    with pytest.raises(UserError, match="other images"):
        train(recipe, tmp_path / "run", resume=True)
    (fewer / "grey").mkdir()
    Image.new("L", (28, 28), 100).save(fewer / "grey" / "0.png")
    with pytest.raises(UserError, match="other images"):  # also where a class came, or went
        train(recipe, tmp_path / "run", resume=True)


def test_a_finished_run_resumed_reads_nothing_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, watch = tmp_path / "run", StopAt(10**8, 0)
    first = train(RECIPE, run)
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    monkeypatch.setattr(measuring, "probabilities", None)
    again = train(RECIPE, run, resume=True, watch=watch)
    assert "the run is finished: nothing is left to do" in watch.lines
    assert (again.test, again.steps) == (first.test, first.steps)
    assert 0 < again.seconds <= first.seconds
    assert {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()} == before


def test_a_run_without_checkpoints_starts_again_only_if_none_was_saved_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    run, early = tmp_path / "run", tmp_path / "early"
    for out, step in ((run, 8), (early, 5)):
        train(RECIPE, out, watch=StopAt(step, signal.SIGTERM))
        shutil.rmtree(out / "checkpoints")
    (early / "timing.jsonl").unlink()  # which says that the signal saved
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds no checkpoint, but the run has been at step 8"):
        train(RECIPE, run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == before
    watch = StopAt(10**8, 0)
    assert train(RECIPE, early, resume=True, watch=watch).steps == 30
    assert any("no checkpoint was saved yet" in line for line in watch.lines)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError(), OSError("gone")])
def test_an_evaluation_that_fails_loses_nothing(tmp_path: Path, monkeypatch, error) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(measuring, "probabilities", fail)
        train(replace(RECIPE, save=Save(every="3 epochs")), tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as run:
        assert run.checkpoints.steps() == [10]


def test_a_warm_up_longer_than_the_run_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, warmup="100 steps"))
    with pytest.raises(UserError, match="warmup"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_agrees_with_the_run(straight: Path, tmp_path: Path) -> None:
    found = plan(RECIPE)
    assert (found.steps, found.training_images, found.test_images) == (30, 500, 200)
    saved = sum(tensor.nbytes for tensor in final_tensors(straight).values())
    assert found.weights_bytes + found.state_bytes == saved


def test_a_plan_counts_what_sharpness_aware_minimisation_takes() -> None:
    """The weights and gradients of the step are kept while those further up are computed."""
    without, found = [
        plan(replace(RECIPE, optimizer=replace(RECIPE.optimizer, sam=sam))) for sam in (0.0, 0.05)
    ]
    assert without.sam_bytes == 0 and found.sam_bytes == 2 * found.weights_bytes
    steps, before = [dict(one.rows())["steps"] for one in (found, without)]
    assert steps == f"{before}, each computed twice"


def test_a_step_that_does_not_fit_into_memory_says_what_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("mixerkit.training.update.Update._backward", full)
    with pytest.raises(RunFailed, match=r"A step needs about .* GiB with --accumulation 5"):
        train(RECIPE, tmp_path / "run")
