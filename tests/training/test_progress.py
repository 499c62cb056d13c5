"""The clock behind a run's figures, on a time that the test sets."""

import pytest

from mixerkit.training import progress
from mixerkit.training.progress import Clock


class Time:
    """`time`, standing still unless it is moved."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(progress, "time", time)
    return time


def test_pauses_do_not_count_not_even_while_they_last(time):
    clock = Clock(7.0, 0)
    assert clock.seconds() == 7.0
    clock.start()
    time.now += 2
    with clock.paused():
        time.now += 50
        assert clock.seconds() == 9.0
    time.now += 1
    assert clock.seconds() == 10.0


def test_the_share_of_waiting(time):
    def slow():
        for batch in range(3):
            time.now += 1
            yield batch

    clock = Clock(0.0, 0)
    clock.start()
    for _ in clock.waiting_for(slow()):
        time.now += 3
    assert clock.waiting_share() == 3 / 12


def test_steps_that_are_done_again_were_done(time):
    clock = Clock(0.0, 10)
    clock.start()
    time.now += 4
    assert clock.steps_per_second(18) == 2.0
    time.now += 1
    clock.went_back(11)  # from step 20 to step 9
    assert clock.average_steps_per_second(9) == 2.0
    assert clock.steps_per_second(9) == 2.0
    time.now += 2
    assert clock.steps_per_second(15) == 3.0
