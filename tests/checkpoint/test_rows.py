"""Rows grow line by line; torn ends are never read and can be cut."""

from pathlib import Path

import pytest

from mixerkit.checkpoint.rows import append_row, cut_back, cut_torn_line, durable_size, read_rows
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
        cut_torn_line(path)
        append_row(path, {"step": 9})
        assert [row["step"] for row in read_rows(path)] == [*range(1, lines + 1), 9]


def test_nan_is_refused_and_bad_lines_are_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError):
        append_row(path, {"loss": float("nan")})
    assert not path.exists()
    for line in (b"{", b"[1]", b"\x00\x00", b""):
        path.write_bytes(b'{"step": 1}\n' + line + b"\n")
        with pytest.raises(UserError, match=r"rows\.jsonl, line 2"):
            read_rows(path)


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
