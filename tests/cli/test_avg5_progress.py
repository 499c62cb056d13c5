"""How far the transfer protocol is, over both stages, by a clock that is turned by hand."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from mixerkit.cli.avg5_progress import Opening, Overall
from mixerkit.cli.progress import Console
from mixerkit.study.runner import StudyFolder, Work
from mixerkit.study.transfer import CHOOSE, FINAL, choosing, final
from mixerkit.study.transfer_plan import Planned
from mixerkit.study.transfer_suite import Suite, average_5
from mixerkit.training.progress import Progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


SUITE = Suite(
    "s",
    "Avg of 2",
    tuple(
        replace(task, rates=(0.01, 0.03))
        for task in average_5().tasks
        if task.name in "pets cifar10"
    ),
)
COSTS = {"cifar10": 100.0, "pets": 10.0}
PLANS = [Planned(task, 512, 9, 1, 1, 5, int(3 * COSTS[task.name])) for task in SUITE.tasks]


def at(step: int, left: float = float("inf")) -> Progress:
    return Progress(step, 10, 0.0, 1.0, None, 5.0, left)


def begun(tmp_path: Path, stage: str, stream: io.StringIO) -> tuple[Overall, Work]:
    trials = choosing(SUITE) if stage == CHOOSE else final(SUITE, {"cifar10": 0.01, "pets": 0.03})
    folder = StudyFolder(trials, tmp_path / stage)
    folder.begin()
    work, overall = Work(folder, print), Overall(Console(stream), PLANS)
    overall.follow(work)
    return overall, work


def test_task_trial_and_time_left_of_the_first_stage(tmp_path, clock):
    """4 trials compare rates, 2 are tested: 330 units of cost."""
    overall, work = begun(tmp_path, CHOOSE, stream := io.StringIO())
    one, two, three, _ = work.folder.configurations
    work.current = one
    overall.progress(at(0))
    assert stream.getvalue().splitlines() == ["CIFAR-10: task 1 of 2, trial 1 of 6"]
    assert overall.seconds_left(at(0)) is None
    # half of the first one takes 5 s more: 50 of 280 units
    assert overall.seconds_left(at(5, 5.0)) == pytest.approx(5 * 280 / 50)
    clock[0] += 20  # all of it took 20 s, evaluation and all
    work.folder.note(one, {"levels": one.levels, "seconds": 9.0})
    work.current = two
    overall.progress(at(0))
    assert overall.seconds_left(at(0)) == pytest.approx(20 / 100 * 230)
    clock[0] += 20
    work.folder.note(two, {"levels": two.levels, "seconds": 9.0})
    work.current = three
    overall.progress(at(0))
    assert stream.getvalue().splitlines()[-1] == (
        "Oxford-IIIT Pets: task 2 of 2, trial 3 of 6, about 26 s left"
    )


def test_the_last_stage_counts_on(tmp_path, clock):
    overall, work = begun(tmp_path, FINAL, stream := io.StringIO())
    work.current = work.folder.configurations[1]
    overall.progress(at(5, 3.0))
    assert "task 2 of 2, trial 6 of 6" in stream.getvalue()
    assert overall.seconds_left(at(5, 3.0)) == pytest.approx(3 * 105 / 5)


def test_rows_that_others_wrote_tell_the_speed(tmp_path, clock):
    overall, work = begun(tmp_path, CHOOSE, io.StringIO())
    one, two, *_ = work.folder.configurations
    work.folder.note(one, {"levels": one.levels, "seconds": 50.0})
    work.folder.note(two, {"levels": two.levels, "error": "NaN"})
    overall.follow(work)
    work.current = work.folder.configurations[2]
    overall.progress(at(0))
    assert overall.seconds_left(at(0)) == pytest.approx(50 / 100 * 130)


def test_without_a_terminal_a_line_is_said_now_and_then(tmp_path, clock):
    overall, work = begun(tmp_path, CHOOSE, stream := io.StringIO())
    work.current = work.folder.configurations[0]
    for _ in range(13):
        overall.progress(at(1, 9.0))
        clock[0] += 100
    overall.say("a step")
    assert len(stream.getvalue().splitlines()) == 2
    overall.say("Stopping after this step")
    assert "Stopping" in stream.getvalue()


def test_opening_is_said_when_it_takes_long_and_drawn_on_a_terminal(clock):
    stream = io.StringIO()
    with Opening(Console(stream)) as watch:
        for seconds in (0, 20, 20, 20):
            clock[0] += seconds
            watch(f"a: opening test images, after {seconds} more")
    assert stream.getvalue().splitlines() == ["a: opening test images, after 20 more"]
    stream.isatty = lambda: True
    with Opening(Console(stream)) as watch:
        watch("a: opening test images, 0 of 9")
    assert stream.getvalue().endswith("\r\x1b[Ka: opening test images, 0 of 9\r\x1b[K")
