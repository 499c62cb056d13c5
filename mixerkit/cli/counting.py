"""How many of many are done, with the time left."""

import time

from mixerkit.cli.progress import SECONDS_BETWEEN_LINES, Console
from mixerkit.cli.text import clock


class Counting:
    """Told how many of `total` are done, redraws a line on a terminal until all are; elsewhere says
    one now and then."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self.console, self.what, self.total = console, what, total
        self.started = self.said = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if done >= self.total:
            self.console.draw("")
            return
        left = clock((self.total - done) * (now - self.started) / done) if done else "?"
        line = f"{self.what}: {done:,} of {self.total:,}, {left} left"
        if not self.console.live and now - self.said > SECONDS_BETWEEN_LINES:
            self.said = now
            self.console.say(line)
        self.console.draw(line)
