"""What a person sees of a transfer."""

import sys
import time
from collections.abc import Callable

Watch = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that have arrived, and all of them if that is known."""


class Shown:
    """Progress for a person on stderr: a line that writes over itself on a terminal, else one
    line at the start and one at the end."""

    def __init__(self) -> None:
        self.started, self.first, self.name, self.last = 0.0, 0, "", 0.0

    def __call__(self, name: str, got: int, total: int | None) -> None:
        now = time.monotonic()
        if name != self.name:
            self.started, self.first, self.name, self.last = now, got, name, 0.0
            if not sys.stderr.isatty():
                whole = f", {total / 2**20:.1f} MiB" if total else ""
                _say(f"fetching {name}{whole}")
        done = total is not None and got >= total
        if sys.stderr.isatty() and (done or now - self.last > 0.1):
            self.last = now
            end = "\n" if done else ""
            print(f"\r\x1b[K{self._line(got, total, now)}", end=end, file=sys.stderr, flush=True)
        elif done and not sys.stderr.isatty():
            _say(self._line(got, total, now))

    def _line(self, got: int, total: int | None, now: float) -> str:
        rate = (got - self.first) / max(now - self.started, 1e-3)
        of = f" of {total / 2**20:.1f}" if total else ""
        left = (total - got) / rate if total and rate else 0
        time_left = f", {int(left) // 60}:{int(left) % 60:02} left" if left >= 1 else ""
        return f"{self.name}: {got / 2**20:.1f}{of} MiB, {rate / 2**20:.1f} MiB/s{time_left}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
