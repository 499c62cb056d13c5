import io
import sys
from pathlib import Path

import pytest

from mixerkit.cli import program
from mixerkit.cli.progress import Console
from mixerkit.cli.text import clock, percent, plural, readable, short, size, table
from mixerkit.training.progress import Progress


def test_numbers_as_people_read_them():
    assert [short(n) for n in (0, 999, 1_000, 12_601_767_936)] == ["0", "999", "1.00 k", "12.60 G"]
    assert [clock(s) for s in (0, 75, 3_700)] == ["0:00", "1:15", "1:01:40"]
    assert [size(n) for n in (10, 2_048, 5 << 20, 3 << 30)] == [
        "10 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert percent(0.9152) == "91.52 %"
    assert [plural(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


def test_table_aligns_texts_left_and_numbers_right():
    assert table([("name", "n"), ("a", "10")]) == "  name   n\n  a     10"


def test_messages_cannot_move_the_cursor_or_fill_the_screen():
    assert readable("No file a\x1b[2Jb\u202ec\udcff.\n\tA é 模型.") == (
        "No file a\\x1b[2Jb\\u202ec\\udcff.\n\tA é 模型."
    )
    first, second = readable("short\n" + "a" * 5_000 + "b" * 5_000).split("\n")
    assert first == "short" and len(second) < 1_010
    assert second.startswith("aaa") and second.endswith("bbb") and " … " in second


def progress(step, validation=None, evaluated=False):
    return Progress(step, 10, step / 5, 0.5, validation, 1000.0, 3.0, evaluated)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_each_evaluation_is_one_plain_line():
    stream = io.StringIO()
    console = Console(stream)
    console.progress(progress(1))
    for step, accuracy in ((2, 0.8), (4, 0.8), (10, 0.9)):  # also where it has not changed
        console.progress(progress(step, accuracy, evaluated=True))
        console.progress(progress(step, accuracy))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3 and "80.00 %" in lines[1] and "90.00 %" in lines[2]
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_on_a_terminal_the_bar_is_redrawn_and_cleared_at_the_end(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    console = Console(stream)
    console.progress(progress(5))
    drawn = stream.getvalue().rpartition("\x1b[K")[2]
    assert "50 %" in drawn and "█" in drawn and len(drawn) < 60 and "\n" not in drawn
    console.progress(progress(10, 0.9))
    assert stream.getvalue().endswith("\x1b[K")


def test_printed_commands_reach_this_python_s_mixer(tmp_path, monkeypatch):
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    ours = tmp_path / "my env" / "bin" / "mixer"
    monkeypatch.setattr(sys, "executable", str(ours.with_name("python")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert program.command("info", Path("a b")) == "'my env/bin/python' -m mixerkit info 'a b'"
    ours.write_text("#!/bin/sh\n")
    ours.chmod(0o755)
    assert program.program() == "'my env/bin/mixer'"
    monkeypatch.setenv("PATH", str(ours.parent))
    assert program.program() == "mixer"
    other = tmp_path / "other"
    other.mkdir()
    (other / "mixer").write_text("#!/bin/sh\n")
    (other / "mixer").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    assert program.program() == "'my env/bin/mixer'"


@pytest.mark.parametrize("path", ["a", "a/b"])
def test_from_here_is_the_shorter_way(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert program.from_here(tmp_path / path) == path
    assert program.from_here(Path("/a")) == "/a"
