"""Warnings stop nothing, whatever became of stderr."""

import io
import sys

from mixerkit.errors import warn


class Gone(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, _):
        raise BrokenPipeError


def test_a_warning_is_one_line_on_stderr(capsys):
    warn("the disk is slow.")
    assert capsys.readouterr() == ("", "warning: the disk is slow.\n")


def test_a_stderr_that_is_gone_stops_nothing(monkeypatch, capsys):
    closed = io.StringIO()
    closed.close()
    for stderr in (Gone(), closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        warn("nobody reads this.")
    assert capsys.readouterr().out == ""
