"""Threads that make images ahead of their use, so that disk, processors and model work at once.

They are daemons: one that is stuck, as on a network disk that hangs, holds up neither the run,
which is told after its patience, nor the end of the program.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue

import numpy as np

from mixerkit import launch
from mixerkit.errors import RunFailed, UserError
from mixerkit.results import usable_cores

# Pixels, or how to make them; safe to call from any thread.
Work = np.ndarray | Callable[[], np.ndarray]
# Pixels, or why there are none.
Result = np.ndarray | UserError
# Raises where the work is to stop.
Poll = Callable[[], None]

PATIENCE = 30.0
IMAGES_PER_TASK = 8  # one by one, handing out costs as much as cropping a small image
LONGEST_LOOK = 0.5  # seconds between two looks at what is waited for
SECONDS_TO_END = 1.0


def nothing() -> None:
    """The `Poll` of those whom nothing stops."""


class Task:
    """A few images of a batch, made one after the other by one thread.

    `results` grows while it is at work. `failure` is what ended it before its time.
    """

    def __init__(self, indices: np.ndarray, works: list[Work]) -> None:
        self.indices, self.works = indices, works
        self.results: list[Result] = []
        self.failure: BaseException | None = None
        self.begun = False
        self.finished = threading.Event()

    def run(self) -> None:
        self.begun = True
        try:
            for work in self.works:
                self.results.append(_result(work))
        except BaseException as error:  # SystemExit too: it would end the thread in silence
            self.failure = error
        finally:
            self.finished.set()

    def at(self) -> int:
        """The index of the image that is being made, or of the last one."""
        return int(self.indices[min(len(self.results), len(self.indices) - 1)])

    def under_way(self) -> bool:
        """Whether a thread is at it, as far as can be told from outside."""
        return self.begun and not self.finished.is_set()


def _result(work: Work) -> Result:
    if isinstance(work, np.ndarray):
        return work
    try:
        return work()
    except UserError as error:
        return error


class Readers:
    """At most `count` daemon threads, which do tasks in the order in which they are handed out."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.threads: list[threading.Thread] = []
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.closed = False

    def start(self, indices: np.ndarray, works: list[Work]) -> list[Task]:
        """A batch cut into tasks; what is in memory needs no thread."""
        size = max(1, min(IMAGES_PER_TASK, len(works) // self.count))
        tasks = [
            Task(indices[first : first + size], works[first : first + size])
            for first in range(0, len(works), size)
        ]
        for task in tasks:
            if any(callable(work) for work in task.works):
                self._hand_out(task)
            else:
                task.run()
        return tasks

    def _hand_out(self, task: Task) -> None:
        self.tasks.put(task)
        if len(self.threads) < self.count:
            thread = threading.Thread(target=self._work, name="mixerkit reader", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            if not self.closed:
                task.run()

    def close(self) -> None:
        """Ends the threads; one that is stuck is left behind and ends when it comes loose."""
        self.closed = True
        for _ in self.threads:
            self.tasks.put(None)
        end = time.monotonic() + SECONDS_TO_END
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))


def fetch(
    batches: Iterable[np.ndarray],
    begin: Callable[[np.ndarray], list[Work]],
    place: Callable[[int], str],
    *,
    workers: int,
    patience: float,
    poll: Poll = nothing,
    ahead: int = 1,
) -> Generator[tuple[np.ndarray, list[Result]]]:
    """(indices, the result for each) for every batch of indices, in order.

    `begin` tells what each image of a batch is or takes; what it takes is done in `workers`
    threads (0: one per processor, which processes on one machine share), `ahead` batches before it
    is asked for. The threads end with the iterator, also when it is dropped half-way. `place` names
    an image for people.

    A `UserError` is a result. `RunFailed` is raised when, while a batch is waited for, no image
    is finished for `patience` seconds, and when a thread meets any other error. `poll` is called
    again and again while a batch is waited for, and may raise.
    """
    readers = Readers(workers or max(1, usable_cores() // launch.processes_here()))
    waiting: deque[tuple[np.ndarray, list[Task]]] = deque()
    try:
        for indices in batches:
            waiting.append((indices, readers.start(indices, begin(indices))))
            if len(waiting) > ahead:
                yield _finished(waiting, place, patience, poll)
        while waiting:
            yield _finished(waiting, place, patience, poll)
    finally:
        readers.close()


def _finished(
    waiting: deque[tuple[np.ndarray, list[Task]]],
    place: Callable[[int], str],
    patience: float,
    poll: Poll,
) -> tuple[np.ndarray, list[Result]]:
    """The first of the waiting batches, which is taken out, when all of it is there."""
    all_tasks = [task for _, tasks in waiting for task in tasks]
    indices, tasks = waiting.popleft()
    for task in tasks:
        if not _finishes(task, all_tasks, patience, poll):
            stuck = [place(one.at()) for one in tasks if one is task or one.under_way()]
            raise RunFailed(
                f"Waited {patience:g} s for {', '.join(stuck)} in vain. Check the disk, which may "
                f"hang; where it or the machine is only slow, start anew with a longer "
                f"data.patience, for a run that goes on keeps its settings."
            )
        if task.failure is not None:
            raise _failed(place(task.at()), task.failure) from task.failure
    return indices, [result for task in tasks for result in task.results]


def _finishes(task: Task, all_tasks: list[Task], patience: float, poll: Poll) -> bool:
    """Wait for the task; False when for `patience` seconds no thread has made any image.

    Threads may wait for each other (`budget.py`), so any image is a sign that things move. Time
    is counted in looks, not by the clock: a program that was suspended has not waited.
    """
    look = min(LONGEST_LOOK, patience / 10)
    waited, made = 0.0, -1
    while not task.finished.wait(look):
        poll()
        before, made = made, sum(len(one.results) for one in all_tasks)
        waited = waited + look if made == before else 0.0
        if waited >= patience:
            return False
    return True


def _failed(place: str, error: BaseException) -> RunFailed:
    what = ": ".join(filter(None, (type(error).__name__, str(error))))
    short = isinstance(error, MemoryError)
    hint = " Free some, or take fewer data.workers or a smaller data.memory." if short else ""
    return RunFailed(f"Reading {place} failed with {what}.{hint}")
