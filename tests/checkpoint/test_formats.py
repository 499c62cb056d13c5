"""Folders that another version wrote: named as such, never read, never removed."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint.checkpoints import FORMAT, Checkpoints
from mixerkit.checkpoint.documents import json_bytes
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.manifest import (
    VERSION,
    OtherFormat,
    manifest_text,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from tests.checkpoint.conftest import flip_bit, row_of, tensors_of


@pytest.fixture
def kept(run_path: Path, recipe) -> Path:
    """A run with checkpoints of steps 1, 2 and 3."""
    with RunFolder.create(run_path, recipe) as run:
        for step in (1, 2, 3):
            run.log(row_of(step))
            run.save_checkpoint(step, tensors_of(step), {}, keep=3)
    return run_path


def at(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def rewrite(folder: Path, found: int | None) -> None:
    """The same checkpoint as of another format; None: of none."""
    manifest = read_manifest(folder)
    about, files = manifest["about"], manifest["files"]
    del about["format"]
    if found is not None:
        about["format"] = found
    (folder / "manifest.json").write_bytes(manifest_text(about, files))


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NEWER = f"was written by a newer mixerkit: this one reads format {FORMAT}, found format 7. Update"
OTHER = rf"another mixerkit: expected a checkpoint of format {FORMAT}, found "


@pytest.mark.parametrize(
    ("found", "said"), [(7, NEWER), (0, f"{OTHER}0"), ("x", f"{OTHER}'x'"), (None, f"{OTHER}None")]
)
def test_the_newest_of_another_format_stops_the_resume_and_all_stays(kept: Path, found, said):
    rewrite(at(kept, 3), found)
    with (kept / "metrics.jsonl").open("ab") as file:
        file.write(b"torn")
    (kept / ".unfinished-a").write_bytes(b"left by a kill")
    (kept / "choices.json").write_bytes(b"damaged")
    before = everything(kept)
    with pytest.raises(OtherFormat, match=said):
        RunFolder.open(kept, writing=True)
    with pytest.raises(OtherFormat, match=said):
        RunFolder.open(kept).newest_checkpoint()
    with pytest.raises(OtherFormat, match=said):
        load(f"{kept}@newest")
    assert everything(kept) == before | {kept / "lock": (kept / "lock").read_bytes()}
    verified = verify_run(kept)
    assert verified.resume == (
        "A resume would be refused: the checkpoint of step 3 is of another format."
    )
    assert verified.resume_step is None and not verified.sound


def test_rows_are_whole_where_every_checkpoint_is_of_another_format(kept: Path):
    for step in (1, 2, 3):
        rewrite(at(kept, step), FORMAT + 1)
    rows = bytearray((kept / "metrics.jsonl").read_bytes())
    rows[3] = 0
    (kept / "metrics.jsonl").write_bytes(rows)
    with pytest.raises(OtherFormat, match="newer mixerkit"):
        RunFolder.open(kept, writing=True)
    assert (kept / "metrics.jsonl").read_bytes() == rows


def test_one_of_another_format_is_never_pruned(kept: Path):
    rewrite(at(kept, 1), None)
    rewrite(at(kept, 2), 7)
    with RunFolder.open(kept, writing=True) as run:
        found = run.newest_checkpoint()
        assert found and found[1]["step"] == 3
        for step in (4, 5, 6):
            run.log(row_of(step))
            run.save_checkpoint(step, tensors_of(step), {}, keep=2)
        assert run.checkpoints.steps() == [1, 2, 5, 6]


def test_a_damaged_newest_one_does_not_hide_the_format_of_the_one_before(kept: Path):
    rewrite(at(kept, 2), 7)
    flip_bit(at(kept, 3) / "tensors.safetensors", 9)
    with RunFolder.open(kept, writing=True) as run, pytest.raises(OtherFormat):
        run.newest_checkpoint()


def test_a_newer_manifest_is_not_called_damaged(tmp_path: Path):
    content = {"format": "mixerkit manifest", "version": VERSION + 1, "what": ["else"]}
    digest = hashlib.sha256(json_bytes(content)).hexdigest()
    (tmp_path / "manifest.json").write_bytes(json_bytes(content | {"sha256": digest}))
    with pytest.raises(OtherFormat, match=f"newer mixerkit.*found format {VERSION + 1}"):
        verify_folder(tmp_path)
    whole = (tmp_path / "manifest.json").read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        flip_bit(tmp_path / "manifest.json", bit)
        with pytest.raises(UserError) as raised:
            verify_folder(tmp_path)
        changed = (tmp_path / "manifest.json").read_bytes()
        assert not isinstance(raised.value, OtherFormat) or json.loads(changed) == json.loads(whole)
        flip_bit(tmp_path / "manifest.json", bit)


def newer(folder: Path) -> bytes:
    """The folder's manifest, as a version to come may write it."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    content["version"] = VERSION + 1
    digest = hashlib.sha256(json_bytes(content)).hexdigest()
    text = json_bytes(content | {"sha256": digest})
    (folder / "manifest.json").write_bytes(text)
    return text


def test_a_newer_manifest_of_a_run_is_not_put_back(kept: Path):
    text, torn = newer(kept), b'{"step": 9'
    (kept / "metrics.jsonl").write_bytes(torn)
    for writing in (False, True):
        with pytest.raises(OtherFormat, match="newer mixerkit"):
            RunFolder.open(kept, writing=writing)
    assert (kept / "manifest.json").read_bytes() == text
    assert (kept / "metrics.jsonl").read_bytes() == torn


def test_a_newer_model_is_not_made_again(kept: Path, model, preprocess):
    with RunFolder.open(kept, writing=True) as run:
        run.save_model(model, preprocess, {})
    newer(kept / "model")
    with pytest.raises(OtherFormat):
        RunFolder.open(kept).damaged_results()
    with pytest.raises(OtherFormat):
        load(kept)
    (part,) = [part for part in verify_run(kept).parts if part.problem]
    assert part.name == "model" and "Update mixerkit" in part.problem
    assert "makes it again" not in part.problem and not verify_run(kept).mends


def test_a_manifest_of_no_known_form_is_damaged(tmp_path: Path):
    for content in ({"format": "other", "version": 9}, {"format": "mixerkit manifest"}, {}):
        digest = hashlib.sha256(json_bytes(content)).hexdigest()
        (tmp_path / "manifest.json").write_bytes(json_bytes(content | {"sha256": digest}))
        with pytest.raises(UserError, match="is no manifest of mixerkit's") as raised:
            verify_folder(tmp_path)
        assert not isinstance(raised.value, OtherFormat)


def test_the_number_is_written(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", "recipe")
    checkpoints.write(1, {"x": torch.ones(1)}, {"step": 1})
    assert checkpoints.about(1)["format"] == FORMAT
