"""Rows grow line by line; torn ends are never read and can be cut."""

import hashlib
import io
import os
from pathlib import Path

import pytest

from mixerkit.checkpoint.rows import (
    append_row,
    cut_back,
    cut_torn_end,
    durable_size,
    prefix_digest,
    read_rows,
    read_usable_rows,
)
from mixerkit.errors import UserError


def test_rows_come_back_in_order_and_exactly(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    rows = [{"step": i, "loss": 1 / (i + 1), "name": "café\n\u2028"} for i in range(20)]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows


def test_a_torn_last_line_is_left_out_at_every_length(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"step": 1})
    append_row(path, {"step": 2})
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        assert len(read_rows(path)) == lines
        cut_torn_end(path)
        append_row(path, {"step": 9})
        assert [row["step"] for row in read_rows(path)] == [*range(1, lines + 1), 9]


def test_nan_is_refused_and_bad_lines_are_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError):
        append_row(path, {"loss": float("nan")})
    assert not path.exists()
    for line in (b"{", b"[1]", b'{"loss": NaN}', b"[" * 100_000, b""):
        path.write_bytes(b'{"step": 1}\n' + line + b"\n")
        with pytest.raises(UserError, match=r"rows\.jsonl, line 2"):
            read_rows(path)


def test_zeros_where_rows_were_end_the_file_and_are_cut_with_a_word(tmp_path: Path, capsys):
    """A loss of power: the file has its length, and some pages of it never reached the disk."""
    path = tmp_path / "rows.jsonl"
    for step in range(1, 9):
        append_row(path, {"step": step})
    whole = path.read_bytes()
    length = len(whole) // 8
    for start in range(len(whole)):
        path.write_bytes(whole[:start] + bytes(5) + whole[start + 5 :])
        left = start // length
        assert [row["step"] for row in read_rows(path)] == [*range(1, left + 1)]
        cut_torn_end(path)
        assert path.stat().st_size == left * length
        said = capsys.readouterr().err
        assert ("lost rows when the power went" in said) == (start + 5 < len(whole))
        append_row(path, {"step": 9})
        assert [row["step"] for row in read_rows(path)] == [*range(1, left + 1), 9]


def test_what_is_no_plain_file_is_named_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("fifo.jsonl", "folder.jsonl"):
        for reading in (read_rows, cut_torn_end):
            with pytest.raises(UserError, match=f"{name} is not a plain file"):
                reading(tmp_path / name)


def test_cutting_back_to_an_offset(tmp_path: Path, capsys):
    path = tmp_path / "rows.jsonl"
    assert durable_size(path) == 0
    append_row(path, {"step": 1})
    offset = durable_size(path)
    append_row(path, {"step": 2})
    cut_back(path, offset)
    assert read_rows(path) == [{"step": 1}]
    assert capsys.readouterr().err == ""
    cut_back(path, offset + 5)
    assert read_rows(path) == [{"step": 1}]
    assert "lost rows" in capsys.readouterr().err


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            return super().write(bytes(data)[:5])

    path = tmp_path / "rows.jsonl"
    append_row(path, {"step": 1})
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Full(path, mode))
    with pytest.raises(OSError, match="No space left") as raised:
        append_row(path, {"step": 2})
    assert raised.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_bytes() == b'{"step": 1}\n'


def test_cutting_back_never_leaves_half_a_line(tmp_path: Path, capsys):
    path = tmp_path / "rows.jsonl"
    for step in (1, 22, 333):
        append_row(path, {"step": step})
    whole = path.read_bytes()
    for size in range(len(whole) + 3):
        path.write_bytes(whole)
        cut_back(path, size)
        left = path.read_bytes()
        assert left == whole[: len(left)] and (not left or left.endswith(b"\n"))
        assert len(left) <= size and b"\n" not in whole[len(left) : size]
        assert ("lost rows" in capsys.readouterr().err) == (len(left) < size)


def test_zeros_in_what_had_reached_the_disk_are_left_to_look_at(tmp_path: Path, capsys):
    path = tmp_path / "rows.jsonl"
    for step in (1, 2, 3):
        append_row(path, {"step": step})
    whole = path.read_bytes()
    damaged = whole.replace(b" 2", b"\0" + b"2")
    path.write_bytes(damaged)
    cut_torn_end(path, kept=2 * len(whole) // 3)
    assert path.read_bytes() == damaged and capsys.readouterr().err == ""
    cut_torn_end(path, kept=len(whole) // 3)
    assert path.read_bytes() == whole[: len(whole) // 3]


def test_usable_rows_are_read_past_the_others(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    assert read_usable_rows(path, lambda row: "") == ([], "")
    path.write_bytes(b'{"a": 1}\n{"a"; 2}\n{"a": "x"}\n[]\n\xff\n{"a": 5}\n{"a"')
    rows, said = read_usable_rows(path, lambda row: "" if type(row["a"]) is int else "no number")
    assert rows == [{"a": 1}, {"a": 5}]
    assert str(path) in said and "4 unusable rows" in said and "line 2: " in said
    path.write_bytes(b'{"a": 1}\n{"a": "x"}\n')
    assert (
        "line 2: no number" in read_usable_rows(path, lambda row: row["a"] != 1 and "no number")[1]
    )


def test_the_digest_of_the_first_rows(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"12345")
    for size in range(6):
        assert prefix_digest(path, size) == hashlib.sha256(b"12345"[:size]).hexdigest()
    assert prefix_digest(path, 6) == ""
