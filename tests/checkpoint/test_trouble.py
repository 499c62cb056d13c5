"""A run that the disk refuses says which file, why, what is intact and what to do."""

import errno
import os
from pathlib import Path

import pytest

from mixerkit.checkpoint import files, rows
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import RunFailed, UserError
from tests.checkpoint.conftest import row_of, tensors_of

WRITES = {
    "choices.json": lambda run, model, preprocess: run.save_choices({"threads": 1}),
    "evaluation.json": lambda run, model, preprocess: run.save_evaluation("test", {}),
    "model": lambda run, model, preprocess: run.save_model(model, preprocess, {}),
    "metrics.jsonl": lambda run, model, preprocess: run.cut_metrics(None),
    "checkpoints/step-00000009": lambda run, model, preprocess: run.save_checkpoint(
        9, tensors_of(9), {}, keep=2
    ),
}


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, but: str = "") -> None:
    """From now on no file or folder can be synced, except those called `but`; the error names
    none, as that of a write to an open file."""
    sync = files.sync

    def refused(path: Path) -> None:
        if path.name == but:
            return sync(path)
        raise OSError(number, os.strerror(number))

    for module in (files, rows):
        monkeypatch.setattr(module, "sync", refused)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_every_file_of_a_run(run, model, preprocess, monkeypatch, name, number):
    def fails() -> str:
        with monkeypatch.context() as patched:
            if name.startswith("checkpoints"):  # its rows are on the disk
                patched.setattr(run, "_choices", {})
                patched.setattr(rows, "sync", lambda path: None)
                patched.setattr(files, "_write_manifest", full)
            else:
                refuse(patched, number)
            with pytest.raises(RunFailed) as raised:
                WRITES[name](run, model, preprocess)
        return str(raised.value)

    def full(*_):
        raise OSError(number, os.strerror(number))

    what = f"{run.path / name} could not be written: {os.strerror(number)}."
    is_full = number in (errno.ENOSPC, errno.EDQUOT)
    folder = (run.path / name).parent
    to_do = f"Free at least 1 MiB on the disk of {folder}" if is_full else "See to the disk"
    assert fails() == f"{what} No checkpoint was saved before. {to_do}, then resume the run."
    for step in (3, 4):
        run.log(row_of(step))
        run.save_checkpoint(step, tensors_of(step), {}, keep=2)
    assert f"{what} The checkpoint of step 4 is intact. {to_do}" in fails()
    (run.checkpoints.at(4) / "state.json").unlink()
    run.close()
    with RunFolder.open(run.path, writing=True) as run:
        assert f"{what} The checkpoint of step 3 is intact. {to_do}" in fails()


def test_it_says_how_much_a_checkpoint_takes(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mixerkit.checkpoint.checkpoints.write_tensors", full)
    tensors = {f"a{i}": tensors_of(1)["model.stem.weight"].repeat(2**12, 8) for i in range(2)}
    mebibytes = -(-2 * 3 * 2**12 * 4 * 8 * 4 // 2**20)
    assert mebibytes > 2
    with pytest.raises(RunFailed, match=f"Free at least {mebibytes} MiB"):
        run.save_checkpoint(1, tensors, {}, keep=2)


@pytest.mark.parametrize("name", ["log", "log_timing", "log_quarantine"])
def test_a_row_that_the_disk_does_not_take(run, monkeypatch, name):
    def full(path, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("mixerkit.checkpoint.run.append_row", full)
    with pytest.raises(RunFailed, match=r"\.jsonl could not be written: No space left on device\."):
        getattr(run, name)({})


@pytest.mark.parametrize("name", ["recipe.yaml", "manifest.json"])
def test_a_run_that_cannot_be_made_names_the_file(run_path, recipe, monkeypatch, name):
    def full(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        files.write_atomic(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("mixerkit.checkpoint.opening.write_atomic", full)
        with pytest.raises(UserError) as raised:
            RunFolder.create(run_path, recipe)
    for words in (f"{run_path}: {run_path / name}: No space left", "Free at least 1 MiB"):
        assert words in str(raised.value)
    RunFolder.create(run_path, recipe).close()


def test_a_run_that_cannot_be_cleared_up_is_a_user_error(run, monkeypatch):
    run.close()
    refuse(monkeypatch, errno.EROFS)
    monkeypatch.setattr("mixerkit.checkpoint.opening.sync", files.sync)
    with pytest.raises(UserError, match=f"Cannot write in {run.path}: .*Read-only"):
        RunFolder.open(run.path, writing=True)
    monkeypatch.undo()
    RunFolder.open(run.path, writing=True).close()  # the lock was given back
