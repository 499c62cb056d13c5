"""Poisoned batches: nothing is changed by them, and each policy does what it says."""

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import NotFinite, Recipe, Save
from mixerkit.training.failures import first_suspect
from mixerkit.training.loop import train
from mixerkit.training.progress import Progress
from mixerkit.training.update import Update
from tests.training.runs import RECIPE, StopAt, assert_same_end

POISONED = (11, 12, 25)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_steps(monkeypatch)


def poison_steps(monkeypatch: pytest.MonkeyPatch, steps: Sequence[int] = ()) -> None:
    """The loss of the second micro-batch of the poisoned steps is infinite, whoever computes it."""
    healthy = Update.loss_of

    def loss_of(update, model: nn.Module, part, weight=None):
        loss = healthy(update, model, part, weight)
        update.count = getattr(update, "count", 0) + 1
        second = update.count % 2 == 0
        return (
            loss * float("inf") if second and update.state.step + 1 in (steps or POISONED) else loss
        )

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


def test_rolling_back_goes_on_from_the_checkpoint_without_the_batch(poison, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", (11, 13, 25))
    watch = StopAt(10**8, 0)
    train(recipe("roll back"), tmp_path / "run", watch=watch)
    train(recipe("skip"), tmp_path / "skipped")
    went_back = [line for line in watch.lines if "left out" in line]
    assert [line.split("going on from ")[1].split(".")[0] for line in went_back] == [
        "step 7", "step 7", "step 21",
    ]  # fmt: skip
    assert_same_end(tmp_path / "skipped", tmp_path / "run")  # the same batches had the same effect


def test_rolling_back_before_the_first_save_starts_again(poison, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", (2,))
    result = train(recipe("roll back"), tmp_path / "run")
    assert result.steps == 30
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == [2]


@pytest.mark.parametrize("policy", ["skip", "roll back"])
def test_more_than_the_limit_stop_the_run(poison, tmp_path, policy, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", (11, 13, 25))
    with pytest.raises(RunFailed, match=r"step 25.*not_finite\.limit is 2.*mixer train --resume"):
        train(recipe(policy, limit=2), tmp_path / "run")


@pytest.mark.parametrize("policy", ["skip", "roll back"])
def test_policies_survive_interruptions(poison, tmp_path, policy, monkeypatch):
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    train(recipe(policy), tmp_path / "straight")
    for attempt, stop in enumerate((10, 12, 20, 27, 99)):
        train(recipe(policy), tmp_path / "run", resume=attempt > 0, watch=StopAt(stop, 15))
    assert_same_end(tmp_path / "straight", tmp_path / "run")


# -- weights that are at fault ------------------------------------------------------------


@pytest.mark.parametrize(
    "failed, left_out, first",
    [
        (8, [], 8),
        (8, [5, 6], 8),
        (8, [7], 6),
        (8, [4, 7], 6),
        (8, [6, 7], 4),
        (8, [2, 6, 7], 4),
        (8, [5, 6, 7], 2),
        (3, [1, 2], 1),
        (8, [9, 10], 8),
        (8, [8], 7),  # evaluated after it was passed over
        (8, [6, 7, 8], 3),
    ],
)
def test_which_batches_are_suspect(failed, left_out, first):
    assert first_suspect(failed, left_out) == first


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The update of step `at` leads to weights with which every batch from step `until` on gives
    figures that are not finite. They are finite, and saved; the damage is there again whenever that
    batch is used, or `once`."""
    apply, loss_of = Update._apply, Update.loss_of

    def damaging(at: int, until: int, once: bool = False) -> None:
        times: list[int] = []

        def damaged_apply(update: Update) -> None:
            apply(update)
            if update.state.step + 1 == at and not (once and times):
                times.append(at)
                with torch.no_grad():
                    update.state.model.head.bias[0] = 1e12

        def damaged_loss(update: Update, model: nn.Module, part, weight=None):
            loss = loss_of(update, model, part, weight)
            is_damaged = update.state.model.head.bias[0] > 1e10
            return loss * float("nan") if is_damaged and update.state.step + 1 >= until else loss

        monkeypatch.setattr(Update, "_apply", damaged_apply)
        monkeypatch.setattr(Update, "loss_of", damaged_loss)

    return damaging


DAMAGES = {
    "in the newest checkpoint": ((14, 15), [14, 15, 16]),
    "in the newest checkpoint, which is the first": ((7, 8), [7, 8, 9]),
    "after the newest checkpoint": ((16, 17), [16, 17, 18]),
    "some steps before the newest checkpoint": ((12, 15), [*range(11, 18)]),
    "once": ((14, 15, True), [14, 15, 16]),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_rolling_back_gets_behind_a_checkpoint_that_leads_to_damage(
    damage, tmp_path, monkeypatch, case
):
    where, left_out = DAMAGES[case]
    damage(*where)
    result = train(recipe("roll back"), tmp_path / "run")
    assert result.steps == 30 and result.test is not None
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == left_out
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept[-2:] == ["step-00000028", "step-00000030"]
    monkeypatch.undo()
    poison_steps(monkeypatch, left_out)
    train(recipe("skip"), tmp_path / "skipped")
    assert_same_end(tmp_path / "skipped", tmp_path / "run")


@pytest.mark.parametrize("case", list(DAMAGES)[:4])
def test_rolling_back_behind_survives_interruptions(damage, tmp_path, monkeypatch, case):
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    damage(*DAMAGES[case][0])
    train(recipe("roll back"), tmp_path / "straight")
    for attempt, stop in enumerate((1, 10, 14, 16, 17, 27, 99)):
        train(recipe("roll back"), tmp_path / "run", resume=attempt > 0, watch=StopAt(stop, 15))
    assert_same_end(tmp_path / "straight", tmp_path / "run")


def test_the_default_limit_allows_fifteen_batches(damage, tmp_path):
    damage(10, 17)
    train(recipe("roll back", limit=NotFinite().limit), tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == [*range(6, 21)]


def test_damage_that_nothing_helps_against_ends_at_the_limit(damage, tmp_path):
    damage(1, 2)
    with pytest.raises(RunFailed, match=r"not_finite\.limit is 2"):
        train(recipe("roll back", limit=2), tmp_path / "run")


def test_outputs_that_are_not_finite_go_back_too(tmp_path, monkeypatch):
    """Measured after step 10, on weights that its update has led to."""
    overflow_at(monkeypatch, 10)
    assert train(recipe("roll back"), tmp_path / "run").steps == 30
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == [10]
    with pytest.raises(RunFailed, match=r"After step 10 .* outputs are not finite"):
        train(recipe("skip"), tmp_path / "skipped")


def test_so_do_those_that_are_measured_at_the_end_alone(tmp_path, monkeypatch):
    """Without held-out images, the test's are the first."""
    overflow_at(monkeypatch, 30)
    tested = replace(recipe("roll back"), data=replace(RECIPE.data, holdout=0), duration="30 steps")
    result = train(tested, tmp_path / "run")
    assert result.steps == 30 and result.test is not None
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == [30]
    assert verify_run(tmp_path / "run").sound


def overflow_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The update of `step` leads to averaged weights with which every output overflows."""
    apply = Update._apply

    def overflowing(update: Update) -> None:
        apply(update)
        if update.state.step + 1 == step:
            for mean in update.state.average.means.values():
                mean.fill_(1e38)

    monkeypatch.setattr(Update, "_apply", overflowing)


ROTTEN = {
    "one between": ([7], [14, 15, 16], 0),
    "the oldest": ([0], [14, 15, 16], 7),
}


@pytest.mark.parametrize("case", ROTTEN)
def test_rolling_back_passes_over_checkpoints_that_are_damaged(
    damage, tmp_path, monkeypatch, case, capsys
):
    """The damage is in the checkpoint of step 14; those of step 0 and 7 are older."""
    broken, left_out, target = ROTTEN[case]
    damage(14, 15)
    rot_at(monkeypatch, tmp_path / "run", 15, broken)
    watch = StopAt(10**8, 0)
    train(recipe("roll back"), tmp_path / "run", watch=watch)
    assert [row["step"] for row in rows(tmp_path / "run", "left out")] == left_out
    last = [line for line in watch.lines if "going on from" in line][-1]
    assert f"going on from step {target}." in last
    assert (f"step-{broken[0]:08d}" in capsys.readouterr().err) == (broken[0] > target)


def test_rolling_back_takes_nothing_away_where_no_older_checkpoint_can_be_used(
    damage, tmp_path, monkeypatch
):
    damage(14, 15)
    rot_at(monkeypatch, tmp_path / "run", 15, [0, 7])
    with pytest.raises(RunFailed, match=r"not_finite\.limit is 10.*from step 14"):
        train(recipe("roll back"), tmp_path / "run")
    monkeypatch.undo()
    assert train(recipe("roll back"), tmp_path / "run", resume=True).steps == 30


def test_without_any_checkpoint_that_can_be_used_the_run_says_so(damage, tmp_path, monkeypatch):
    damage(14, 15)
    rot_at(monkeypatch, tmp_path / "run", 15, [0, 7, 14])
    with pytest.raises(RunFailed, match=r"no step to roll back to\. No checkpoint in"):
        train(recipe("roll back"), tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [0, 7, 14]


def rot_at(monkeypatch: pytest.MonkeyPatch, run: Path, step: int, broken: list[int]) -> None:
    """Before step `step` is first tried, a bit of the checkpoints of the `broken` steps turns."""
    call, left = Update.__call__, list(broken)

    def rotting(update: Update, batch):
        while left and update.state.step + 1 == step:
            path = run / "checkpoints" / f"step-{left.pop():08d}" / "tensors.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        return call(update, batch)

    monkeypatch.setattr(Update, "__call__", rotting)


def test_a_run_that_went_back_and_stopped_is_sound(damage, tmp_path, monkeypatch):
    """It stops before the step of a checkpoint that it has taken away, and before it was measured
    again."""
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    damage(14, 15)
    watch = StopsAfterGoingBack(10**8, signal.SIGTERM)
    result = train(recipe("roll back"), tmp_path / "run", watch=watch)
    assert result.steps == 8 and result.validation is None
    assert any(watch.validations) and watch.validations[-1] is None
    verified = verify_run(tmp_path / "run")
    assert verified.sound, [part.problem for part in verified.parts if part.problem]


class StopsAfterGoingBack(StopAt):
    """Sends its signal with the step that follows."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step, number)
        self.validations: list[float | None] = []

    def say(self, line: str) -> None:
        super().say(line)
        if "going on from step 7." in line:
            self.step = 8

    def progress(self, now: Progress) -> None:
        self.validations.append(now.validation)
        super().progress(now)


# -- what is saved meanwhile --------------------------------------------------------------


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


def test_steps_that_were_left_out_push_out_no_checkpoint(poison, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", tuple(range(9, 31)))
    with pytest.raises(RunFailed, match="step 19"):
        train(often(recipe("skip")), tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [7, 8]


def test_a_signal_after_them_saves_and_pushes_out_no_checkpoint(poison, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.training.test_not_finite.POISONED", tuple(range(6, 14)))
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    train(often(recipe("skip")), tmp_path / "straight")
    for stop, wanted in ((7, [4, 7]), (9, [4, 9]), (13, [4, 13]), (14, [13, 14])):
        result = train(
            often(recipe("skip")), tmp_path / "run", resume=stop > 7, watch=StopAt(stop, 15)
        )
        assert (result.steps, saved_steps(tmp_path / "run")) == (stop, wanted)
    train(often(recipe("skip")), tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "straight", tmp_path / "run")


def often(recipe: Recipe) -> Recipe:
    """Saved after every step, and measured at the end alone."""
    evaluate = replace(recipe.evaluate, every="30 steps")
    return replace(recipe, save=Save(every="1 step"), evaluate=evaluate)
