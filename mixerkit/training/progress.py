"""What a run tells whoever watches it, and the clock behind the figures."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from mixerkit.data.loader import Batch


@dataclass(frozen=True)
class Progress:
    """Where a run is. Before this process has made a step, `loss` is NaN, `images_per_second` 0
    and `seconds_left` infinite. `validation` is the latest held-out top-1, None before the first;
    `evaluated` says that it was measured just now."""

    step: int
    total: int
    epoch: float
    loss: float
    validation: float | None
    images_per_second: float
    seconds_left: float
    evaluated: bool = False


class Watcher(Protocol):
    """Who is told about a run: lines to print, and progress to draw."""

    def say(self, line: str) -> None:
        """Print one line for a person."""

    def progress(self, now: Progress) -> None:
        """Draw progress: called about twice a second and after every evaluation."""


class Silent:
    """A watcher that says and draws nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def progress(self, now: Progress) -> None:
        """Draw nothing."""


class Clock:
    """Seconds of training, over resumes; evaluation and saving are left out by `paused`."""

    def __init__(self, seconds_before: float, step: int) -> None:
        self._before = seconds_before
        self._started: float | None = None
        self._paused, self._waited = 0.0, 0.0
        self._pause: float | None = None  # when the current one began
        self._first = step
        self._mark = (0.0, step)
        self._signed = -math.inf

    def start(self) -> None:
        """Begin to count."""
        self._started = time.perf_counter()

    def _running(self) -> float:
        if self._started is None:
            return 0.0
        now = time.perf_counter() if self._pause is None else self._pause
        return now - self._started - self._paused

    def seconds(self) -> float:
        """Seconds of training so far, those of earlier processes included."""
        return self._before + self._running()

    def due(self, interval: float) -> bool:
        """True at most once in `interval` seconds."""
        now = time.perf_counter()
        if now - self._signed < interval:
            return False
        self._signed = now
        return True

    def went_back(self, steps: int) -> None:
        """So many steps are to be done again: they were done, and count as speed."""
        self._first -= steps
        self._mark = (self._mark[0], self._mark[1] - steps)

    def steps_per_second(self, step: int) -> float:
        """Speed since this was last asked, with `step` updates done now."""
        now, (then, first) = self._running(), self._mark
        self._mark = (now, step)
        return (step - first) / max(now - then, 1e-9)

    def average_steps_per_second(self, step: int) -> float:
        """Speed of this process so far; 0 before its first step."""
        return (step - self._first) / max(self._running(), 1e-9)

    def waiting_share(self) -> float:
        """Share of the training time of this process that was spent waiting for data."""
        return self._waited / max(self._running(), 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside does not count as training."""
        self._pause = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - self._pause
            self._pause = None

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time each takes to come is noted as waiting."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch
