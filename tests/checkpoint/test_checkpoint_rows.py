"""A checkpoint goes with the rows that it was saved with, or with none."""

import json
from pathlib import Path

import pytest

from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from tests.checkpoint.conftest import flip_bit, row_of, tensors_of


@pytest.fixture
def three(run_path: Path, recipe) -> Path:
    """A run with checkpoints of steps 1, 2 and 3, each with its row, and one more row."""
    with RunFolder.create(run_path, recipe) as run:
        for step in (1, 2, 3):
            save(run, step)
        run.log(row_of(4))
    return run_path


def save(run: RunFolder, step: int) -> None:
    run.log(row_of(step, loss=1 / step))
    run.save_checkpoint(step, tensors_of(step), {}, keep=3)


def newest(path: Path) -> int:
    found = RunFolder.open(path).newest_checkpoint()
    assert found
    return int(found[1]["step"])


def line_ends(path: Path) -> list[int]:
    content = (path / "metrics.jsonl").read_bytes()
    return [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]


def test_any_flipped_bit_of_a_row_is_seen_and_the_checkpoint_before_is_used(three, capsys):
    """Also one that makes another number of a number, and one that makes a zero byte."""
    path, ends = three / "metrics.jsonl", line_ends(three)
    for line in (1, 2):
        for bit in range(8 * ends[line - 1], 8 * ends[line], 5):
            flip_bit(path, bit)
            damaged = path.read_bytes()
            with RunFolder.open(three, writing=True) as run:
                found = run.newest_checkpoint()
                assert path.read_bytes() == damaged
            assert found and found[1]["step"] == line
            said = capsys.readouterr().err
            assert "metrics.jsonl" in said and "step 3 was saved with. Trying" in said
            assert ("step 2 was saved with. Trying" in said) == (line == 1)
            flip_bit(path, bit)
    assert newest(three) == 3 and capsys.readouterr().err == ""


def test_rows_after_the_newest_checkpoint_do_not_matter(three: Path):
    path, ends = three / "metrics.jsonl", line_ends(three)
    flip_bit(path, 8 * ends[2] + 3)
    with RunFolder.open(three, writing=True) as run:
        found = run.newest_checkpoint()
        assert found and found[1]["step"] == 3
        run.cut_metrics(found[1])
        assert [row["step"] for row in run.metrics()] == [1, 2, 3]


def test_what_is_recomputed_from_the_checkpoint_before_ends_the_same(three: Path, tmp_path, recipe):
    flip_bit(three / "metrics.jsonl", 8 * line_ends(three)[1] + 8 * 12)
    with RunFolder.open(three, writing=True) as run:
        found = run.newest_checkpoint()
        assert found
        run.cut_metrics(found[1])
        for step in (3, 4):
            save(run, step)
    with RunFolder.create(tmp_path / "other", recipe) as other:
        for step in (1, 2, 3, 4):
            save(other, step)
    for file in [p for p in run.checkpoints.folder.rglob("*") if p.is_file()]:
        same = tmp_path / "other" / file.relative_to(three)
        assert not same.exists() or file.read_bytes() == same.read_bytes(), file
    assert run.checkpoints.steps() == [2, 3, 4]
    rows = [(path / "metrics.jsonl").read_bytes() for path in (three, tmp_path / "other")]
    assert rows[0] == rows[1]


def test_changed_rows_of_all_are_refused_with_the_ways_out_and_nothing_is_lost(three, capsys):
    path = three / "metrics.jsonl"
    whole = path.read_bytes()
    for content in (b"x" + whole[1:], b"\0" + whole[1:], b"", whole.replace(b" 0.5", b" 0.4")[1:]):
        path.write_bytes(content)
        with RunFolder.open(three, writing=True) as run:
            with pytest.raises(UserError) as raised:
                run.newest_checkpoint()
            assert run.checkpoints.steps() == [1, 2, 3]
        for words in (str(path), "The weights are whole", "Restore the file", "or delete it"):
            assert words in str(raised.value)
        assert path.read_bytes() == content
    path.write_bytes(whole)
    assert newest(three) == 3


def test_deleted_rows_are_a_decision_that_holds(three: Path, capsys):
    """The run goes on from the newest weights; a kill before the next save asks nothing again."""
    (three / "metrics.jsonl").unlink()
    assert newest(three) == 3 and not (three / "metrics.jsonl").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "metrics.jsonl is absent: the run goes on from step 3" in said
    with RunFolder.open(three, writing=True) as run:
        found = run.newest_checkpoint()
        assert found and found[1]["step"] == 3
        run.cut_metrics(found[1])
        run.log(row_of(4))
    assert capsys.readouterr().err == said
    with RunFolder.open(three, writing=True) as run:
        found = run.newest_checkpoint()
        assert found and found[1]["step"] == 3
        run.cut_metrics(found[1])
        assert run.metrics() == []
        save(run, 4)
    assert newest(three) == 4 and capsys.readouterr().err == ""
    assert [row["step"] for row in run.metrics()] == [4]


def test_the_same_rows_and_choices_make_the_same_state(run: RunFolder):
    run.save_choices({"threads": 1})
    save(run, 1)
    state, inode = run.checkpoints.at(1) / "state.json", run.checkpoints.at(1).stat().st_ino
    run.save_checkpoint(1, tensors_of(1), {}, keep=3)
    assert run.checkpoints.at(1).stat().st_ino == inode
    assert json.loads(state.read_text())["choices"] == {"threads": 1}
    run.save_choices({"threads": 2})
    run.save_checkpoint(1, tensors_of(1), {}, keep=3)
    assert json.loads(state.read_text())["choices"] == {"threads": 2}
    assert (run.checkpoints.at(1) / "recipe.yaml").read_bytes() == (
        run.path / "recipe.yaml"
    ).read_bytes()
