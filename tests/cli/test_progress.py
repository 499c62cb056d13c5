"""Watching a run must never end it."""

import errno
import io
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from mixerkit.cli.progress import Console, bar, describe
from mixerkit.training.progress import Progress

NOW = Progress(5, 10, 2.5, 0.25, 0.5, 100.0, 60.0, evaluated=True)


class Gone(io.StringIO):
    """A stream whose reader goes away after the first line."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.lines = error, 0

    def write(self, text: str) -> int:
        self.lines += 1
        if self.lines > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "closed"),
        OSError(errno.EIO, "terminal gone"),
        OSError(errno.ENOSPC, "full"),
        ValueError("closed"),
    ],
)
def test_a_stream_that_fails_is_given_up(error):
    stream = Gone(error)
    console = Console(stream)
    console.say("first")
    for _ in range(3):
        console.say("more")
        console.progress(NOW)
    assert stream.getvalue() == "first\n" and stream.lines == 2


def test_a_signal_s_answer_in_the_middle_of_a_line_is_left_out():
    stream = Gone(RuntimeError("reentrant call"))
    console = Console(stream)
    console.say("first")
    console.say("answer")
    stream.lines = 0
    console.say("next")
    assert stream.getvalue() == "first\nnext\n"


def test_a_closed_pipe_leaves_no_traceback_and_no_error():
    code = "import sys, mixerkit.cli.progress as p; c = p.Console(sys.stdout)\n"
    code += "for i in range(1000): c.say(str(i) * 100)\nprint('end')"
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_what_is_not_known_yet_is_not_shown():
    assert describe(NOW) == "epoch  2.50 of 5  loss 0.250  held-out 50.00 %  100 images/s"
    early = replace(
        NOW, loss=math.nan, validation=None, images_per_second=0.0, seconds_left=math.inf
    )
    assert describe(early) == "epoch  2.50 of 5"
    assert "left" not in bar(early) and "1:00 left" in bar(NOW)
