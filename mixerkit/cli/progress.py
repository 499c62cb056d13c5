"""A run as it is watched: a line for every evaluation, and a bar where there is a terminal."""

import math
import shutil
import time
from typing import TYPE_CHECKING, TextIO

from mixerkit.cli.streams import drop
from mixerkit.cli.text import clock, percent

if TYPE_CHECKING:
    from mixerkit.training.progress import Progress

SECONDS_BETWEEN_LINES = 30.0  # when there is no terminal to draw a bar on
BAR = 16
CLEAR_LINE = "\r\x1b[K"


class Console:
    """Prints what a run says, until nobody can read it any more: a closed terminal or pipe, or a
    full disk under the output, is no reason to end a run."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.live, self.lost = stream, stream.isatty(), False
        self.printed, self.described = time.monotonic(), 0  # when, and at which step

    def say(self, line: str) -> None:
        """One line for a person."""
        self._write((CLEAR_LINE if self.live else "") + line + "\n")

    def progress(self, now: "Progress") -> None:
        """Redraw the bar; print a line after an evaluation, or when long nothing was printed."""
        overdue = time.monotonic() - self.printed > SECONDS_BETWEEN_LINES and not self.live
        done = now.step == now.total
        if (now.evaluated or done or overdue) and now.step != self.described:
            self.printed, self.described = time.monotonic(), now.step
            self.say(describe(now))
        self.draw("" if done else bar(now))

    def draw(self, line: str) -> None:
        """On a terminal, put `line` in the place of the one that was drawn before."""
        if self.live:
            columns = shutil.get_terminal_size().columns
            self._write(CLEAR_LINE + line[: columns - 1])

    def _write(self, text: str) -> None:
        if self.lost:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except RuntimeError:  # a signal came in the middle of a line, and wants one of its own
            return
        except (OSError, ValueError):
            self.lost = True
            drop(self.stream)


def describe(now: "Progress") -> str:
    """Where a run is, in one line."""
    epochs = now.epoch * now.total / max(1, now.step)
    parts = [f"epoch {now.epoch:5.2f} of {epochs:.4g}"]
    if not math.isnan(now.loss):
        parts.append(f"loss {now.loss:.3f}")
    if now.validation is not None:
        parts.append(f"held-out {percent(now.validation)}")
    if now.images_per_second:
        parts.append(f"{now.images_per_second:,.0f} images/s")
    return "  ".join(parts)


def bar(now: "Progress") -> str:
    """The same after a bar and the time left: what matters least is cut off first."""
    done = round(BAR * now.step / now.total)
    share = 100 * now.step / now.total
    left = f"{clock(now.seconds_left)} left  " if math.isfinite(now.seconds_left) else ""
    return f"{'█' * done}{'░' * (BAR - done)} {share:3.0f} %  {left}{describe(now)}"
