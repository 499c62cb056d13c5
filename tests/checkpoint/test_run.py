"""The run folder: creating, refusing, resuming, one writer, and the list of runs."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint import lock
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.lock import Lock
from mixerkit.checkpoint.manifest import manifest_text, verify_folder
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.runs import list_runs, summary
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Optimizer, Recipe
from tests.checkpoint.conftest import Killed, flip_bit, left_out, row_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Refuse a second writer at once."""
    monkeypatch.setattr(lock, "LOCK_PATIENCE", 0.02)


def test_what_was_stored_comes_back(run_path: Path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        assert run.choices() == {} and run.metrics() == [] and run.timings() == []
        assert run.evaluation() is None and run.state() == "running"
        run.save_choices({"threads": 2, "compile": False})
        run.log(row_of(1, loss=0.1))
        run.log_timing({"step": 1, "seconds": 0.5})
        run.save_evaluation("test", {"figures": {"top1": 0.5}})
    reader = RunFolder.open(run_path)
    assert reader.recipe() == recipe
    assert reader.choices() == {"threads": 2, "compile": False}
    assert reader.metrics() == [row_of(1, loss=0.1)]
    assert reader.timings() == [{"step": 1, "seconds": 0.5}]
    assert reader.evaluation() == {"split": "test", "figures": {"top1": 0.5}}
    assert reader.state() == "stopped"


def test_every_recipe_field_survives_the_folder(tmp_path: Path):
    recipe = Recipe(name="ünïcode: x", optimizer=Optimizer(name="muon", lr=1e-3), ema=0.999)
    with RunFolder.create(tmp_path / "a" / "b", recipe) as run:
        assert run.recipe() == recipe


def test_a_used_folder_is_refused_with_what_is_there_and_what_to_type(tmp_path: Path, recipe):
    path = tmp_path / "my run"
    with RunFolder.create(path, recipe) as run:
        run.save_checkpoint(40, {"x": torch.ones(1)}, {}, keep=2)
        with pytest.raises(UserError, match=f"running, written by process {os.getpid()}") as busy:
            RunFolder.create(path, recipe)
        assert "--resume" not in str(busy.value) and "--out" in str(busy.value)
    with pytest.raises(UserError) as refused:
        RunFolder.create(path, recipe)
    message = str(refused.value)
    assert "recipe 'tiny', step 40, stopped" in message and "--out" in message
    assert f"mixer train --resume {shlex.quote(str(path))}`" in message
    flip_bit(path / "recipe.yaml", 3)
    with pytest.raises(UserError, match=r"recipe\.yaml was changed or damaged") as damaged:
        RunFolder.create(path, recipe)
    assert "give another --out" in str(damaged.value)


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path, recipe):
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        RunFolder.create(tmp_path, recipe)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "recipe.yaml", recipe)
    with pytest.raises(UserError, match="Cannot make the run folder"):
        RunFolder.create(tmp_path / "recipe.yaml" / "run", recipe)


def test_of_two_that_create_at_once_one_wins(run_path: Path, recipe, monkeypatch):
    def late_lock(folder: Path) -> Lock:
        monkeypatch.undo()
        RunFolder.create(folder, recipe).close()  # another process is faster
        return Lock(folder)

    monkeypatch.setattr("mixerkit.checkpoint.run.Lock", late_lock)
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder.create(run_path, Recipe(name="late"))
    with RunFolder.open(run_path, writing=True) as run:
        assert run.recipe() == recipe


def test_an_empty_folder_is_fine(run_path: Path, recipe):
    run_path.mkdir()
    RunFolder.create(run_path, recipe).close()


@pytest.mark.parametrize("point", range(1, 10))
def test_a_kill_while_creating_can_be_created_again(run_path, recipe, kill_at, monkeypatch, point):
    kill_at(point)
    try:
        RunFolder.create(run_path, recipe).close()
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    assert finished == (point > 7)
    if (run_path / "manifest.json").exists():  # the kill came after the last rename
        with RunFolder.open(run_path, writing=True) as run:
            assert run.recipe() == recipe
    else:
        RunFolder.create(run_path, recipe).close()
    assert sorted(p.name for p in run_path.iterdir()) == ["lock", "manifest.json", "recipe.yaml"]


def test_a_second_writer_is_refused_and_readers_are_not(run: RunFolder):
    with pytest.raises(UserError, match=rf"process {os.getpid()} on host .* since "):
        RunFolder.open(run.path, writing=True)
    assert RunFolder.open(run.path).state() == "running"
    run.close()
    run.close()
    with RunFolder.open(run.path, writing=True) as again:
        assert again.state() == "running"
    assert RunFolder.open(run.path).state() == "stopped"


WRITE_FOREVER = """
import itertools, sys, pathlib
from mixerkit.checkpoint.lock import Lock
from mixerkit.checkpoint.rows import append_row
folder = pathlib.Path(sys.argv[1])
lock = Lock(folder)
for step in itertools.count(1):
    append_row(folder / "metrics.jsonl", {"step": step, "split": "x" * 2000})
    if step == 1:
        print("writing", flush=True)
"""  # what RunFolder does, without the seconds that importing torch takes


def test_kill_9_of_a_real_writer_leaves_a_run_that_opens(run: RunFolder):
    run.close()
    command = [sys.executable, "-c", WRITE_FOREVER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"writing\n"
        with pytest.raises(UserError, match=f"process {other.pid}"):
            RunFolder.open(run.path, writing=True)
        other.kill()
    with RunFolder.open(run.path, writing=True) as again:
        again.log(row_of(-1))
        rows = again.metrics()
    assert [row["step"] for row in rows] == [*range(1, len(rows)), -1] and len(rows) > 1


def test_opening_for_writing_clears_leftovers_and_reading_does_not(run: RunFolder):
    run.save_checkpoint(1, {"x": torch.ones(1)}, {}, keep=2)
    run.close()
    lefts = [run.path / f"{UNFINISHED}a", run.path / "checkpoints" / f"{UNFINISHED}step-2"]
    for left in lefts:
        left.mkdir()
        (left / "x").write_text("x")
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    RunFolder.open(run.path)
    assert all(left.exists() for left in lefts)
    with RunFolder.open(run.path, writing=True) as again:
        assert not any(left.exists() for left in lefts)
        assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'
        assert again.checkpoints.steps() == [1]


def test_reading_alone_changes_nothing(run: RunFolder):
    run.save_checkpoint(1, {"x": torch.ones(1)}, {}, keep=2)
    run.close()
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    reader = RunFolder.open(run.path)
    reader.newest_checkpoint()
    summary(reader)
    with pytest.raises(AssertionError):
        reader.log({"step": 1})
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_unreadable_images_are_listed_once_and_stay_on_resume(run: RunFolder):
    assert run.quarantine() == []
    run.log_quarantine(left_out("a.jpg"))
    run.save_checkpoint(1, {"x": torch.ones(1)}, {}, keep=2)
    run.log_quarantine(left_out("b.jpg"))
    run.close()
    with (run.path / "quarantine.jsonl").open("ab") as file:
        file.write(b'{"path": "c.j')
    with RunFolder.open(run.path, writing=True) as again:
        found = again.newest_checkpoint()
        assert found
        again.cut_metrics(found[1])
        again.log_quarantine(left_out("c.jpg"))
        assert [row["file"] for row in again.quarantine()] == ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(AssertionError):
        RunFolder.open(run.path).log_quarantine({})


def test_folders_are_on_the_disk_before_what_is_in_them(tmp_path: Path, recipe, monkeypatch):
    """Each folder that is made is named on the disk before anything is written into it."""
    synced, made = [], []
    fsync, mkdir = os.fsync, os.mkdir

    def logged_fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    def logged_mkdir(path, *options):
        assert not made or made[-1].parent in synced
        made.append(Path(path))
        mkdir(path, *options)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "mkdir", logged_mkdir)
    RunFolder.create(tmp_path / "a" / "b" / "run", recipe).close()
    assert [path.name for path in made] == ["a", "b", "run"]
    assert synced[:3] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_changed_recipe_is_detected(run: RunFolder):
    run.close()
    flip_bit(run.path / "recipe.yaml", 50)
    with pytest.raises(UserError, match=r"recipe\.yaml was changed or damaged"):
        RunFolder.open(run.path)


def test_a_manifest_without_the_recipe_is_refused(run: RunFolder):
    run.close()
    (run.path / "manifest.json").write_bytes(manifest_text({"kind": "run"}, {}))
    with pytest.raises(UserError, match=r"does not list recipe\.yaml"):
        RunFolder.open(run.path)
    assert list_runs(run.path)[0]["state"] == "damaged"


def test_what_is_not_a_run_is_refused(tmp_path, model, preprocess, run):
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.open(run.save_model(model, preprocess, {}))


def test_metrics_are_cut_back_to_the_checkpoint(run: RunFolder):
    run.log(row_of(1))
    run.save_checkpoint(1, {"x": torch.ones(1)}, {}, keep=2)
    run.log(row_of(2))
    found = run.newest_checkpoint()
    assert found
    run.cut_metrics(found[1])
    assert run.metrics() == [row_of(1)]
    run.cut_metrics(None)
    assert run.metrics() == []


def test_a_model_finishes_the_run_and_can_be_replaced(run, model, preprocess):
    run.save_model(model, preprocess, {"step": 1})
    run.close()
    assert RunFolder.open(run.path).state() == "finished"
    with RunFolder.open(run.path, writing=True) as again:
        again.save_model(model, preprocess, {"step": 2})
    assert load(run.path).about == {"step": 2}
    assert verify_folder(run.path / "model") == {"kind": "model"}


def test_the_list_of_runs(tmp_path: Path, recipe, model, preprocess):
    with RunFolder.create(tmp_path / "good", recipe) as run:
        run.save_choices({"total_steps": 90})
        for step, top1 in ((30, 0.7), (60, 0.9), (90, 0.8)):
            run.log({"step": step, "split": "validation", "top1": top1})
        run.log({"step": 90, "split": "test", "top1": 0.75})
        run.save_model(model, preprocess, {})
    RunFolder.create(tmp_path / "bad", recipe).close()
    flip_bit(tmp_path / "bad" / "recipe.yaml", 3)
    (tmp_path / "something else").mkdir()
    rows = {row["name"]: row for row in list_runs(tmp_path)}
    assert rows.keys() == {"good", "bad"}
    assert {key: rows["good"][key] for key in ("recipe", "state", "step", "total_steps")} == dict(
        recipe="tiny", state="finished", step=90, total_steps=90
    )
    assert (rows["good"]["best_validation"], rows["good"]["test_accuracy"]) == (0.9, 0.75)
    assert rows["bad"]["state"] == "damaged" and "recipe.yaml" in rows["bad"]["problem"]
    assert rows["good"].keys() == rows["bad"].keys()
    assert json.dumps(list_runs(tmp_path / "good"))
    with pytest.raises(UserError, match="No folder"):
        list_runs(tmp_path / "absent")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.jsonl", '{"step": "many"}\n'),
        ("metrics.jsonl", '{"step": 1, "split": "validation", "top1": null}\n'),
        ("choices.json", '{"total_steps": [1]}'),
    ],
)
def test_figures_of_another_kind_are_named_in_the_list(run: RunFolder, file, text):
    (run.path / file).write_text(text)
    assert file in list_runs(run.path)[0]["problem"]
