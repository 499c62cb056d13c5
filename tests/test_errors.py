"""Warnings stop nothing, whatever became of stderr."""

import io
import sys

from mixerkit.errors import did_you_mean, warn


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


def test_what_was_meant_is_found_in_capitals_too():
    assert did_you_mean("bagg", ("coat", "Bag")) == " Did you mean 'Bag'?"
    assert did_you_mean("Bag", ("coat", "bag")) == " Did you mean 'bag'?"
    assert did_you_mean("xyz", ("coat", "Bag")) == ""
