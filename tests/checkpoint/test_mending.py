"""Small files of a run that were damaged are put back from its checkpoints, and only then."""

import errno
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mixerkit.checkpoint.manifest import manifest_text, read_manifest, verify_folder
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.runs import list_runs
from mixerkit.errors import Unreadable, UserError
from tests.checkpoint.conftest import Killed, flip_bit, row_of, tensors_of

CHOICES = {"threads": 2, "compile": False, "total_steps": 90, "images": "60 of x"}
SMALL = ("recipe.yaml", "manifest.json", "choices.json")


@pytest.fixture
def kept(run_path: Path, recipe) -> Path:
    """A run with choices, and checkpoints of steps 1, 2 and 3."""
    with RunFolder.create(run_path, recipe) as run:
        run.save_choices(CHOICES)
        for step in (1, 2, 3):
            run.log(row_of(step))
            run.save_checkpoint(step, tensors_of(step), {}, keep=3)
    return run_path


def assert_mends(path: Path, whole: dict[str, bytes], capsys, *damaged: str) -> None:
    """Opening for writing puts the files back, with a line for each; then nothing is to be said."""
    capsys.readouterr()
    with RunFolder.open(path, writing=True) as run:
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(damaged)
        for name in damaged:
            (line,) = [line for line in said if f"{path / name}" in line]
            assert line.startswith("warning: ")
            assert line.endswith("A resume puts it back as the checkpoint of step 3 has it.")
        found = run.newest_checkpoint()
        assert found and found[1]["step"] == 3 and run.choices() == CHOICES
    for name in ("recipe.yaml", "choices.json"):
        assert (path / name).read_bytes() == whole[name]
    assert verify_folder(path, kind="run")["created"].startswith("20")
    RunFolder.open(path, writing=True).close()
    assert capsys.readouterr().err == ""


def small_files(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_a_flipped_bit_is_mended_by_a_writer_and_named_to_a_reader(kept, capsys, name):
    whole = small_files(kept)
    bits = 8 * len(whole[name])
    for bit in range(0, bits, bits // 40):
        flip_bit(kept / name, bit)
        damaged = (kept / name).read_bytes()
        if name != "choices.json":
            with pytest.raises(UserError) as raised:
                RunFolder.open(kept)
            assert f"{kept / name}" in str(raised.value)
            resume = f"`mixer train --resume {shlex.quote(str(kept))}` puts it back"
            assert f"{resume} from the checkpoint of step 3." in str(raised.value)
        assert (kept / name).read_bytes() == damaged
        if name == "choices.json" and not lost(kept):  # white space, or a key that is ours alone
            assert RunFolder.open(kept).choices()
        else:
            assert_mends(kept, whole, capsys, name)
        for file, content in whole.items():
            (kept / file).write_bytes(content)


def lost(path: Path) -> bool:
    """Whether choices.json lacks something of what was chosen."""
    try:
        found = json.loads((path / "choices.json").read_bytes())
    except ValueError:
        return True
    return not isinstance(found, dict) or any(found.get(key) != CHOICES[key] for key in CHOICES)


@pytest.mark.parametrize("names", [("recipe.yaml",), ("manifest.json",), ("choices.json",), SMALL])
def test_what_is_missing_is_put_back(kept, capsys, names):
    whole = small_files(kept)
    for name in names:
        (kept / name).unlink()
    if names != ("choices.json",):
        assert list_runs(kept.parent)[0]["state"] == "damaged"
        with pytest.raises(UserError, match="puts it back from the checkpoint of step 3"):
            RunFolder.open(kept)
    assert_mends(kept, whole, capsys, *names)
    assert list_runs(kept.parent)[0]["state"] == "stopped"


def test_a_manifest_that_is_put_back_knows_the_machine_of_the_oldest_checkpoint(kept: Path):
    about = read_manifest(kept / "checkpoints/step-00000001")["about"]
    other = rewritten(kept / "checkpoints/step-00000001", torch="0.4", device="a GPU of then")
    (kept / "manifest.json").unlink()
    RunFolder.open(kept, writing=True).close()
    found = read_manifest(kept)["about"]
    assert found["versions"] == {"torch": "0.4"} and other != about
    assert found["machine"] == {
        "device": "a GPU of then",
        "instruction_set": about["instruction_set"],
    }


def test_a_manifest_that_is_put_back_claims_nothing_that_is_not_known(kept: Path):
    rewritten(kept / "checkpoints/step-00000001", torch=None, device=None, instruction_set=None)
    (kept / "manifest.json").unlink()
    RunFolder.open(kept, writing=True).close()
    found = read_manifest(kept)["about"]
    assert found["versions"] == {"torch": "unknown"}
    assert found["machine"] == {"device": "unknown", "instruction_set": "unknown"}


def rewritten(folder: Path, **changes: str | None) -> dict:
    """What the manifest of a checkpoint says about it after these changes; None takes away."""
    manifest = read_manifest(folder)
    changed = {key: value for key, value in (manifest["about"] | changes).items() if value}
    (folder / "manifest.json").write_bytes(manifest_text(changed, manifest["files"]))
    return changed


def test_a_reader_of_choices_is_told_what_a_resume_does(kept: Path):
    (kept / "choices.json").write_text("{")
    with pytest.raises(UserError, match=r"choices\.json is not valid .* puts it back from .* 3\."):
        RunFolder.open(kept).choices()


def test_the_copy_of_an_older_checkpoint_does_where_the_newest_is_damaged(kept, capsys):
    whole = small_files(kept)
    flip_bit(kept / "checkpoints/step-00000003/recipe.yaml", 9)
    flip_bit(kept / "checkpoints/step-00000002/state.json", 9)
    for name in SMALL:
        (kept / name).unlink()
    with RunFolder.open(kept, writing=True) as run:
        assert capsys.readouterr().err.count("step 1 has it") == 3
        assert run.choices() == CHOICES
    assert (kept / "recipe.yaml").read_bytes() == whole["recipe.yaml"]


def test_without_a_sound_copy_recipe_and_manifest_are_refused_and_left(kept, run_path):
    for step in (1, 2, 3):
        flip_bit(kept / f"checkpoints/step-0000000{step}/manifest.json", 9)
    for name in SMALL:
        whole = (kept / name).read_bytes()
        (kept / name).write_bytes(b"{" + whole)
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as raised:
            RunFolder.open(kept, writing=True)
        assert "puts it back" not in str(raised.value)
        assert (kept / name).read_bytes() == b"{" + whole
        (kept / name).write_bytes(whole)


@pytest.mark.parametrize("threads", [0, 2**40])
def test_choices_that_no_checkpoint_depends_on_are_made_again(run_path, recipe, capsys, threads):
    with RunFolder.create(run_path, recipe) as run:
        run.save_choices(CHOICES)
    (run_path / "choices.json").write_text(f'{{"threads": {threads}}}')
    with RunFolder.open(run_path, writing=True) as run:
        assert run.choices() == {}
    said = capsys.readouterr().err
    assert (
        "choices.json: expected 1 to 1024 under 'threads'" in said and "A resume empties it" in said
    )


def test_choices_that_were_made_after_the_checkpoint_stay(run_path, recipe, capsys):
    with RunFolder.create(run_path, recipe) as run:
        run.save_choices({"images": "x"})
        run.save_checkpoint(0, tensors_of(0), {}, keep=2)
        run.save_choices(CHOICES | {"images": "x"})
    with RunFolder.open(run_path, writing=True) as run:
        assert run.choices() == CHOICES | {"images": "x"}
    assert capsys.readouterr().err == ""


def test_a_checkpoint_knows_what_was_chosen_whatever_became_of_the_file(run, capsys):
    run.save_choices(CHOICES)
    (run.path / "choices.json").write_text("{")
    run.save_checkpoint(1, tensors_of(1), {}, keep=2)
    run.close()
    with RunFolder.open(run.path, writing=True) as again:
        assert again.choices() == CHOICES


def test_another_runs_checkpoint_does_not_overwrite_the_recipe(kept, tmp_path, recipe, capsys):
    with RunFolder.create(tmp_path / "other", replace(recipe, seed=1)) as other:
        other.save_checkpoint(7, tensors_of(7), {}, keep=2).rename(
            kept / "checkpoints/step-00000007"
        )
    whole = small_files(kept)
    (kept / "manifest.json").unlink()
    with RunFolder.open(kept, writing=True) as run:
        found = run.newest_checkpoint()
        assert run.recipe() == recipe and found and found[1]["step"] == 3
    flip_bit(kept / "recipe.yaml", 9)
    with RunFolder.open(kept, writing=True) as run:
        assert run.recipe() == recipe
    assert (kept / "recipe.yaml").read_bytes() == whole["recipe.yaml"]


@pytest.mark.parametrize("name", SMALL)
def test_what_cannot_be_read_now_is_not_put_back(kept, monkeypatch, name):
    opened = Path.open

    def sector(path: Path, *arguments, **options):
        if path == kept / name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **options)

    inode = (kept / name).stat().st_ino
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", sector)
        with pytest.raises(Unreadable, match=f"{name}: Input/output error"):
            RunFolder.open(kept, writing=True)
    assert (kept / name).stat().st_ino == inode
    RunFolder.open(kept, writing=True).close()


def test_a_kill_at_any_call_of_the_mending_can_be_mended_again(kept, kill_at, monkeypatch, capsys):
    whole = small_files(kept)
    for point in range(1, 40):
        for name in SMALL:
            (kept / name).write_bytes(b"")
        kill_at(point)
        try:
            RunFolder.open(kept, writing=True).close()
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        with RunFolder.open(kept, writing=True) as run:
            assert run.choices() == CHOICES
        assert (kept / "recipe.yaml").read_bytes() == whole["recipe.yaml"]
        if finished:
            break
    assert 9 < point < 39
