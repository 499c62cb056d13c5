"""Reading threads: exact in every order, and neither silent nor in the way when one fails."""

import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from mixerkit.data import readers
from mixerkit.data.readers import Readers, fetch
from mixerkit.errors import RunFailed, UserError

BATCHES = [np.arange(first, first + 20) for first in range(0, 100, 20)]


def image(index: int) -> np.ndarray:
    return np.full((1, 2, 2), index, np.uint8)


def run(make=image, workers=2, patience=30.0, ahead=1, in_memory=lambda index: False):
    """`fetch` of all batches; `make` is called in the threads."""

    def begin(indices):
        return [image(i) if in_memory(i) else partial(make, i) for i in indices.tolist()]

    return fetch(
        BATCHES, begin, lambda i: f"{i}.png", workers=workers, patience=patience, ahead=ahead
    )


def assert_exact(found) -> None:
    """The first batches, in order."""
    for (indices, results), wanted in zip(found, BATCHES, strict=False):
        assert indices.tolist() == wanted.tolist()
        assert [result[0, 0, 0] for result in results] == wanted.tolist()


def readers_alive() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "mixerkit reader"}


@pytest.mark.parametrize("workers", [0, 1, 2, 7, 50])
@pytest.mark.parametrize("ahead", [1, 3])
def test_every_result_in_its_place(workers, ahead):
    for in_memory in (lambda i: False, lambda i: i % 3 == 0, lambda i: i < 50, lambda i: True):
        found = list(run(workers=workers, ahead=ahead, in_memory=in_memory))
        assert len(found) == len(BATCHES)
        assert_exact(found)
    assert not readers_alive()


def test_a_user_error_is_a_result_and_the_others_are_made():
    def make(index):
        if index % 7 == 3:
            raise UserError(f"not {index}")
        return image(index)

    for indices, results in run(make):
        for index, result in zip(indices, results, strict=True):
            assert str(result) == f"not {index}" if index % 7 == 3 else result[0, 0, 0] == index


@pytest.mark.parametrize("error", [MemoryError, SystemExit, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_ends_a_thread_is_told_with_the_file(error, workers):
    def make(index):
        if index == 47:
            raise error("no more")
        return image(index)

    found = []
    with pytest.raises(RunFailed, match=rf"47\.png failed with {error.__name__}: no more") as told:
        found.extend(run(make, workers=workers))
    assert len(found) == 2 and isinstance(told.value.__cause__, error)
    assert_exact(found)


@pytest.mark.parametrize("workers, stuck", [(1, [47]), (3, [47]), (2, [41, 59])])
def test_a_stuck_thread_is_told_with_the_file_and_left_behind(monkeypatch, workers, stuck):
    monkeypatch.setattr(readers, "SECONDS_TO_END", 0.1)
    loose = threading.Event()

    def make(index):
        if index in stuck:
            loose.wait()
        return image(index)

    found = []
    with pytest.raises(RunFailed) as told:
        found.extend(run(make, workers=workers, patience=0.3))
    assert len(found) == 2
    assert_exact(found)
    assert f"Waited 0.3 s for {', '.join(f'{i}.png' for i in stuck)} in vain" in str(told.value)
    left = readers_alive()
    assert len(left) == len(stuck) and all(thread.daemon for thread in left)
    loose.set()
    for thread in left:
        thread.join()


class Looked:
    """A task that finishes one image in every `looks` looks at it, 8 in all."""

    def __init__(self, looks: int) -> None:
        self.looks, self.seen = looks, 0
        self.results: list[int] = []
        self.finished = self

    def wait(self, _: float) -> bool:
        self.seen += 1
        if self.seen % self.looks == 0:
            self.results.append(self.seen)
        return len(self.results) == 8


def finishes(task, all_tasks, patience: float) -> bool:
    return readers._finishes(task, all_tasks, patience, readers.nothing)


@pytest.mark.parametrize("patience", [0.3, 30.0])
def test_patience_is_for_one_image_not_for_a_batch(patience):
    slow = Looked(looks=8)
    assert finishes(slow, [slow], patience)  # far longer in all than the patience
    hanging = Looked(looks=1000)
    assert not finishes(hanging, [hanging], patience)
    assert hanging.seen * min(readers.LONGEST_LOOK, patience / 10) == pytest.approx(patience, 0.2)


def test_a_thread_that_waits_for_another_does_not_hang():
    for watched_too in (True, False):
        first, behind = Looked(looks=8), Looked(looks=1000)
        behind.wait = first.wait  # nothing comes of it until the other is done
        all_tasks = [first, behind] if watched_too else [behind]
        assert finishes(behind, all_tasks, 1.0) is watched_too


def test_threads_are_as_many_as_asked_for_and_do_not_pile_up():
    reached = threading.Barrier(3)

    def make(index):
        reached.wait()  # passes when three are at work at once, and no more than three ever are
        assert len(readers_alive()) == 3
        return image(index)

    found = []
    with pytest.raises(RunFailed, match="BrokenBarrierError"):
        for batch in run(make, workers=3):
            found.append(batch)
            reached.abort() if len(found) == 2 else None
    assert_exact(found)
    for _ in range(20):
        next(run(workers=3))
    assert not readers_alive()


def test_processes_on_one_machine_share_its_processors(monkeypatch):
    monkeypatch.setattr(readers, "usable_cores", lambda: 8)
    for processes, expected in (("1", 8), ("3", 2), ("20", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        found = run(workers=0)
        next(found)
        assert len(readers_alive()) == expected
        found.close()


def test_closing_does_not_begin_what_was_handed_out():
    inside, loose, made = threading.Event(), threading.Event(), []

    def make(index):
        inside.set()
        loose.wait()
        made.append(index)
        return image(index)

    threads = Readers(1)
    for batch in BATCHES:
        threads.start(batch[:1], [partial(make, batch[0])])
    inside.wait()
    threads.closed = True
    loose.set()
    threads.close()
    assert made == [0]


PROGRAM = """
import threading, numpy as np
from mixerkit.data.readers import fetch
from mixerkit.errors import RunFailed
def begin(indices):
    return [threading.Event().wait for _ in indices]
found = fetch([np.arange(4)], begin, str, workers=2, patience=0.2)
try:
    next(found)
except RunFailed as error:
    print(error)
    print([t.name for t in threading.enumerate() if not t.daemon])
"""


def test_a_stuck_thread_does_not_hold_up_the_end_of_the_program():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "in vain" in done.stdout and "['MainThread']" in done.stdout
