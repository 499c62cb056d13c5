"""No completed checkpoint is lost, none is silently wrong: kills, bit flips, pruning."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixerkit.checkpoint.files import UNFINISHED, discard, manifest_text, verify_folder
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import RunFailed, UserError
from tests.checkpoint.conftest import Killed, flip_bit


def tensors_of(step: int) -> dict[str, Tensor]:
    """Tensors that differ at every step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model.stem.weight": torch.randn(3, 4, generator=generator),
        "optimizer.0.momentum": torch.randn(5, generator=generator, dtype=torch.float64),
        "ema.stem.weight": torch.randn(3, generator=generator).bfloat16(),
        "optimizer.0.step": torch.tensor(step),
    }


def save(run: RunFolder, step: int, keep: int = 2) -> Path:
    """Log a row and save a checkpoint, as training does."""
    run.log({"step": step, "split": "train", "loss": 1 / step})
    return run.save_checkpoint(step, tensors_of(step), {"seconds": 0.1 * step}, keep)


def newest_step(run: RunFolder) -> int:
    """The step of the newest checkpoint, after checking that it is whole."""
    found = run.newest_checkpoint()
    assert found
    tensors, state = found
    expected = tensors_of(state["step"])
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert state["seconds"] == 0.1 * state["step"]
    return int(state["step"])


def test_none_without_a_checkpoint(run: RunFolder):
    assert run.newest_checkpoint() is None


def test_the_newest_comes_back_exactly_and_two_are_kept(run: RunFolder):
    for step in (1, 2, 3, 10):
        assert save(run, step).name == f"step-{step:08d}"
        assert newest_step(run) == step
    assert run.checkpoints.steps() == [3, 10]


def test_more_are_kept_when_asked_and_fewer_than_two_are_refused(run: RunFolder):
    for step in range(1, 7):
        save(run, step, keep=4)
    assert run.checkpoints.steps() == [3, 4, 5, 6]
    with pytest.raises(UserError, match="At least 2"):
        save(run, 7, keep=1)


def test_the_manifest_says_under_which_conditions(run: RunFolder):
    about = verify_folder(save(run, 5))
    assert about["threads"] == torch.get_num_threads()
    assert about["torch"] == torch.__version__
    assert about["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert about["step"] == 5 and len(about["recipe"]) == 64


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used(run, name, capsys):
    save(run, 1)
    path = save(run, 2) / name
    size = 8 * path.stat().st_size
    for bit in range(0, size, max(1, size // 60)):
        flip_bit(path, bit)
        assert newest_step(run) == 1
        assert f"step-00000002/{name}" in capsys.readouterr().err
        flip_bit(path, bit)
    assert newest_step(run) == 2


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_missing_cut_and_swapped_files_fall_back(run, name, capsys):
    before, path = save(run, 1) / name, save(run, 2) / name
    whole = path.read_bytes()
    for content in (b"", whole[:-1], bytes(len(whole)), before.read_bytes()):
        path.write_bytes(content)
        assert newest_step(run) == 1
    path.unlink()
    assert newest_step(run) == 1
    assert f"step-00000002/{name}" in capsys.readouterr().err


def test_a_checkpoint_under_another_name_or_from_another_run_is_refused(run, tmp_path, capsys):
    from dataclasses import replace

    save(run, 1)
    with RunFolder.create(tmp_path / "other", replace(run.recipe(), seed=1)) as other:
        save(other, 7).rename(run.checkpoints.at(7))
    assert newest_step(run) == 1
    assert "another recipe" in capsys.readouterr().err
    run.checkpoints.at(7).rename(tmp_path / "away")
    save(run, 2).rename(run.checkpoints.at(9))
    assert newest_step(run) == 1
    assert "it was moved" in capsys.readouterr().err


def test_a_checkpoint_without_its_tensors_in_the_manifest_is_no_checkpoint(run, capsys):
    save(run, 1)
    folder = save(run, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["tensors.safetensors"]
    text = manifest_text(manifest["about"], manifest["files"])
    (folder / "manifest.json").write_bytes(text)
    assert newest_step(run) == 1
    assert "does not list tensors.safetensors" in capsys.readouterr().err


def test_names_that_we_never_give_are_passed_over(run: RunFolder):
    save(run, 1)
    others = ["step-000000012", "step-7", "step-x"]
    for name in others:
        (run.checkpoints.folder / name).mkdir()
    (run.checkpoints.folder / "step-00000013").symlink_to("nowhere")
    (run.checkpoints.folder / "step-00000014").write_text("a file")
    assert run.checkpoints.steps() == [1] and newest_step(run) == 1
    for step in (20, 21, 22):
        save(run, step)
    assert all((run.checkpoints.folder / name).exists() for name in others)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_what_is_pruned_while_it_is_read_is_no_problem(run, name, monkeypatch, capsys):
    """The folder goes at the moment when the reader opens one of its files."""
    save(run, 1)
    folder, opened = save(run, 2), Path.open

    def pruned_meanwhile(path: Path, *arguments, **options):
        if path == folder / name:
            monkeypatch.undo()
            discard(folder)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", pruned_meanwhile)
    assert newest_step(run) == 1
    assert not folder.exists() and capsys.readouterr().err == ""


def test_a_verified_checkpoint_is_not_read_again_to_be_kept(run_path, recipe, monkeypatch):
    with RunFolder.create(run_path, recipe) as run:
        save(run, 1)
    with RunFolder.open(run_path, writing=True) as run:
        assert newest_step(run) == 1
        monkeypatch.setattr("mixerkit.checkpoint.checkpoints.verify_folder", None)
        save(run, 2)
        assert run.checkpoints.steps() == [1, 2]


def test_when_all_are_damaged_nothing_starts_from_nothing(run: RunFolder, capsys):
    for step in (1, 2):
        flip_bit(save(run, step) / "state.json", 10)
    with pytest.raises(UserError, match=r"(?s)step-00000002/state.*step-00000001/state"):
        run.newest_checkpoint()


def test_saving_a_step_again_leaves_a_sound_one_and_replaces_a_damaged_one(run_path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        save(run, 1)
        folder = save(run, 2)
    inode = folder.stat().st_ino
    with RunFolder.open(run_path, writing=True) as run:
        save(run, 2)
    assert folder.stat().st_ino == inode
    flip_bit(folder / "tensors.safetensors", 999)
    with RunFolder.open(run_path, writing=True) as run:
        save(run, 2)
        assert newest_step(run) == 2
        assert run.checkpoints.steps() == [1, 2]


def test_a_damaged_checkpoint_never_counts_as_one_of_those_kept(run_path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        for step in (1, 2):
            save(run, step)
    flip_bit(run.checkpoints.at(2) / "tensors.safetensors", 999)
    with RunFolder.open(run_path, writing=True) as run:
        save(run, 3)
        assert 1 in run.checkpoints.steps()  # 2 is damaged, so 1 is the second newest
        save(run, 4)
        assert run.checkpoints.steps() == [3, 4]


@pytest.mark.parametrize("point", range(1, 26))
def test_a_kill_at_any_point_of_a_save_loses_nothing(run_path, recipe, kill_at, monkeypatch, point):
    """25 points cover the sync, the save and the pruning; the last ones must be past the end."""
    run = RunFolder.create(run_path, recipe)
    save(run, 1)
    save(run, 2)
    kill_at(point)
    try:
        save(run, 3)
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    run.close()  # the system frees a dead process's lock
    for step in run.checkpoints.steps():
        verify_folder(run.checkpoints.at(step))  # no half of one under its name
    assert newest_step(RunFolder.open(run_path)) in ((3,) if finished else (2, 3))
    assert finished or point < 25
    with RunFolder.open(run_path, writing=True) as run:
        assert not list(run_path.rglob(f"{UNFINISHED}*"))
        found = run.newest_checkpoint()
        assert found
        run.cut_metrics(found[1])
        if newest_step(run) == 2:
            save(run, 3)
        assert newest_step(run) == 3
        assert [row["step"] for row in run.metrics()] == [1, 2, 3]
        save(run, 4)
        assert run.checkpoints.steps() == [3, 4]


def test_a_full_disk_keeps_the_checkpoint_before_and_says_what_is_needed(run, monkeypatch):
    save(run, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("mixerkit.checkpoint.checkpoints.write_tensors", full)
        with pytest.raises(RunFailed, match=r"step 1 is intact\. Free at least 1 MiB"):
            save(run, 2)
    assert newest_step(run) == 1
    assert not list(run.path.rglob(f"{UNFINISHED}*"))


def test_a_polling_reader_never_sees_a_part_or_a_warning(run: RunFolder, capsys):
    save(run, 1)
    stop, seen, problems = threading.Event(), [], []

    def poll():
        reader = RunFolder.open(run.path)
        while not stop.is_set():
            try:
                seen.append(newest_step(reader))
                reader.metrics()
                assert reader.state() == "running"
            except BaseException as error:
                problems.append(repr(error))
                return

    thread = threading.Thread(target=poll)
    thread.start()
    for step in range(2, 50):
        save(run, step)
    stop.set()
    thread.join()
    assert not problems
    assert seen == sorted(seen) and len(set(seen)) > 3
    assert capsys.readouterr().err == ""
