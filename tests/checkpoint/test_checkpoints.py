"""No completed checkpoint is lost, none is silently wrong: kills, bit flips, pruning."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint.checkpoints import best_of
from mixerkit.checkpoint.environment import differences, environment
from mixerkit.checkpoint.files import UNFINISHED, discard
from mixerkit.checkpoint.manifest import describe_file, manifest_text, verify_folder
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import RunFailed, Unreadable, UserError
from tests.checkpoint.conftest import Killed, flip_bit, tensors_of

FILES = ("tensors.safetensors", "state.json", "recipe.yaml", "manifest.json")


def save(run: RunFolder, step: int, keep: int = 2) -> Path:
    """Log a row and save a checkpoint, as training does."""
    run.log({"step": step, "split": "train", "loss": 1 / step})
    return save_only(run, step, keep)


def save_only(run: RunFolder, step: int, keep: int = 2) -> Path:
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


def save_measured(run: RunFolder, step: int, accuracy: float | None, keep: int = 2) -> Path:
    """Save a checkpoint whose held-out accuracy was measured, or was not."""
    state = {"seconds": 0.1 * step, "validation": accuracy}
    return run.save_checkpoint(step, tensors_of(step), state, keep)


@pytest.mark.parametrize("keep", [2, 3])
def test_the_best_is_kept_besides_the_newest(run: RunFolder, keep):
    """Against a plain retelling of the rule: the newest, and the first of the highest."""
    accuracies = [None, 0.5, 0.7, None, 0.6, 0.7, 0.69, None, 0.9, 0.1, None, 0.2, None]
    for step, accuracy in enumerate(accuracies):
        save_measured(run, step, accuracy, keep)
        so_far = accuracies[: step + 1]
        measured = [a for a in so_far if a is not None]
        best = {so_far.index(max(measured))} if measured else set()
        newest = set(range(max(0, step - keep + 1), step + 1))
        assert set(run.checkpoints.steps()) == newest | best
    assert len(run.checkpoints.steps()) == keep + 1


def test_the_best_is_kept_by_the_next_process_too_unless_it_is_damaged(run_path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        for step, accuracy in enumerate((0.8, 0.9, 0.3, 0.4), start=1):
            save_measured(run, step, accuracy)
    with RunFolder.open(run_path, writing=True) as run:
        save_measured(run, 5, 0.5)
        assert run.checkpoints.steps() == [2, 4, 5]
    flip_bit(run.checkpoints.at(2) / "tensors.safetensors", 999)
    with RunFolder.open(run_path, writing=True) as run:
        save_measured(run, 6, None)
        assert run.checkpoints.steps() == [5, 6]  # 5 is the best of those that are sound


@pytest.mark.parametrize("gaps", [(1,), (3,), (4,), (7,), (10,), (25,), (1, 1, 6, 2)])
def test_the_one_to_go_back_to_moves_up_with_the_run(run: RunFolder, gaps):
    """It is `reach` steps old as soon as any can be, and never much more than twice that."""
    reach, step, longest = 10, 0, max(gaps)
    for gap in [0, *gaps * (160 // sum(gaps))]:
        step += gap
        run.save_checkpoint(step, tensors_of(step), {}, 2, reach)
        steps = run.checkpoints.steps()
        old = max((one for one in steps if one <= step - reach), default=steps[0])
        assert step - old <= 2 * reach + longest, steps
        assert old <= max(0, step - reach) and len(steps) <= 4, steps
    assert step > 8 * reach


def test_the_best_of_none_of_equals_and_of_one():
    assert best_of({}) is None and best_of({1: None}) is None
    assert best_of({3: 0.5, 1: 0.5, 2: None}) == 1
    assert best_of({1: 0.0, 2: None}) == 1


def test_the_conditions_then_and_now(run: RunFolder):
    save(run, 5)
    then = run.checkpoints.about(5)
    here = environment(torch.device("cpu"))
    assert differences(then, here) == []
    now = here | {"threads": then["threads"] + 3, "torch": "9.9"}
    assert differences(then, now) == [
        f"PyTorch: {torch.__version__} then, 9.9 now",
        f"threads: {then['threads']} then, {then['threads'] + 3} now",
    ]
    assert len(differences({}, here)) == 4
    with pytest.raises(UserError, match="step-00000006"):
        run.checkpoints.about(6)


@pytest.mark.parametrize("name", FILES)
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


@pytest.mark.parametrize("name", FILES)
def test_missing_cut_and_swapped_files_fall_back(run, name, capsys):
    before, path = save(run, 1) / name, save(run, 2) / name
    whole = path.read_bytes()
    swapped = before.read_bytes() if name != "recipe.yaml" else b"name: other"
    for content in (b"", whole[:-1], bytes(len(whole)), swapped):
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
    others = ["step-000000012", "step-7", "step-x", "step-٠٠٠٠٠٠١٢"]
    for name in others:
        (run.checkpoints.folder / name).mkdir()
    assert run.checkpoints.steps() == [1] and newest_step(run) == 1
    for step in (20, 21, 22):
        save(run, step)
    assert all((run.checkpoints.folder / name).exists() for name in others)


def test_files_and_links_under_our_names_are_named_and_never_removed(run, tmp_path, capsys):
    save(run, 1)
    folder = run.checkpoints.folder
    save(run, 2).rename(tmp_path / "elsewhere")
    (folder / "step-00000002").symlink_to(tmp_path / "elsewhere")
    (folder / "step-00000013").symlink_to("nowhere")
    (folder / "step-00000014").write_text("a file")
    assert run.checkpoints.steps() == [1] and newest_step(run) == 1
    said = capsys.readouterr().err
    assert all(f"step-{step:08d} is not a folder" in said for step in (2, 13, 14))
    for step in (20, 21, 22):
        save(run, step)
    assert run.checkpoints.steps() == [21, 22]
    assert [os.path.lexists(folder / f"step-{step:08d}") for step in (2, 13, 14)] == [True] * 3
    assert (tmp_path / "elsewhere" / "state.json").exists()


def test_only_links_where_checkpoints_were_is_no_start_from_nothing(run, tmp_path, capsys):
    save(run, 1).rename(tmp_path / "elsewhere")
    run.checkpoints.at(1).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="step-00000001 is not a folder"):
        run.newest_checkpoint()
    run.checkpoints.at(1).unlink()
    run.checkpoints.folder.rmdir()
    run.checkpoints.folder.write_text("")
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        run.newest_checkpoint()


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_the_very_bytes_is_not_taken_for_the_file(run, tmp_path, name, capsys):
    save(run, 1)
    path = save(run, 2) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert newest_step(run) == 1
    assert f"step-00000002/{name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "state",
    [{"step": 1}, {"step": "2"}, {"metrics_bytes": -1}, {"metrics_bytes": 1.0},
     {"metrics_bytes": None}, {"metrics_sha256": 5}, {"choices": []}],
)  # fmt: skip
def test_a_state_that_says_something_else_falls_back(run, state, capsys):
    """Also where the manifest vouches for it."""
    save(run, 1)
    folder = save(run, 2)
    sound = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(sound | state))
    about = json.loads((folder / "manifest.json").read_text())["about"]
    names = ("state.json", "tensors.safetensors", "recipe.yaml")
    listed = {name: describe_file(folder / name) for name in names}
    (folder / "manifest.json").write_bytes(manifest_text(about, listed))
    assert newest_step(run) == 1
    assert "step-00000002/state.json is no state of step 2" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
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


def test_a_step_saved_again_leaves_what_is_the_same_and_replaces_all_else(run_path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        save(run, 1)
        folder = save(run, 2)
    inode = folder.stat().st_ino
    with RunFolder.open(run_path, writing=True) as run:
        save_only(run, 2)
        assert folder.stat().st_ino == inode
        save(run, 2)  # now one more row of metrics belongs to it
        assert folder.stat().st_ino != inode
        assert newest_step(run) == 2
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


def test_an_old_one_that_cannot_be_removed_is_named_and_the_new_one_counts(
    run, monkeypatch, capsys
):
    for step in (1, 2):
        save(run, step)

    def refuse(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    save(run, 3)
    assert "step-00000001 could not be removed" in capsys.readouterr().err
    assert newest_step(run) == 3


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_read_now_is_neither_used_nor_removed(
    run_path, recipe, monkeypatch, capsys, name
):
    """The best checkpoint lies on a sector that gives an error until the disk is asked again."""
    with RunFolder.create(run_path, recipe) as run:
        for step, accuracy in ((1, 0.9), (2, 0.5), (3, 0.4)):
            save_measured(run, step, accuracy)
    best, opened = run.checkpoints.at(1), Path.open

    def sector(path: Path, *arguments, **options):
        if path == best / name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **options)

    with RunFolder.open(run_path, writing=True) as run:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", sector)
            save_measured(run, 4, 0.3)
            save_measured(run, 5, 0.2)
            with pytest.raises(Unreadable, match=f"step-00000001/{name}: Input/output"):
                run.checkpoints.read(1)
        save_measured(run, 6, 0.1)
        assert run.checkpoints.steps() == [1, 5, 6] and run.checkpoints.read(1)
    assert capsys.readouterr().err == ""


def test_it_is_said_that_the_checkpoint_before_is_tried_where_there_is_one(run, capsys):
    for step in (1, 2):
        (save(run, step) / "state.json").unlink()
    with pytest.raises(UserError, match="No checkpoint"):
        run.newest_checkpoint()
    first, second = capsys.readouterr().err.splitlines()
    assert "step-00000002" in first and first.endswith(" Trying the checkpoint before.")
    assert "step-00000001" in second and "Trying" not in second


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
