"""Signals in every phase of a run: saved where it stands, and the end is the same."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from PIL import Image

from mixerkit.checkpoint import checkpoints
from mixerkit.data import pixels
from mixerkit.training import measuring
from mixerkit.training.interrupt import SAME_EVENT, Interrupt, Interrupted, second_ends_at_once
from mixerkit.training.loop import train
from mixerkit.training.update import Update
from tests.training.runs import RECIPE, StopAt, assert_same_end


def raise_signal_at(call: int, function):
    """`function`, which sends this process a SIGTERM when it is called for the `call`-th time."""
    calls = iter(range(1, 10**6))

    def wrapped(*arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return wrapped


@pytest.fixture
def stopped_at(straight, tmp_path, monkeypatch):
    """Trains with a signal at the `call`-th call of `owner.name`, resumes to the end, compares with
    the run that nothing happened to, and gives the step that was reached."""

    def stopped(owner: object, name: str, call: int) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raise_signal_at(call, getattr(owner, name)))
            result = train(RECIPE, tmp_path / "run")
        assert result.interrupted == signal.SIGTERM
        assert train(RECIPE, tmp_path / "run", resume=True).interrupted == 0
        assert_same_end(straight, tmp_path / "run")
        return result.steps

    return stopped


def test_between_micro_batches(stopped_at):
    # two micro-batches a step: the signal comes with the first one of step 10
    assert stopped_at(Update, "loss_of", 7 + 2 * 9 + 1) == 9


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4])
def test_during_evaluation(stopped_at, evaluation):
    """Of the held-out images after each epoch, and of the test images at the end."""
    assert stopped_at(measuring, "probabilities", evaluation) == min(10 * evaluation, 30)


def test_an_evaluation_that_a_signal_stopped_counts_in_the_checkpoint_of_its_step(
    tmp_path, monkeypatch
):
    """The checkpoint is saved by the signal before the accuracy is known, and again after it."""
    recipe = replace(RECIPE, save=replace(RECIPE.save, every=RECIPE.evaluate.every))
    train(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "probabilities", raise_signal_at(2, measuring.probabilities))
        assert train(recipe, tmp_path / "stopped").steps == 20
    train(recipe, tmp_path / "stopped", resume=True)
    left, right = [
        {path.relative_to(run): path.read_bytes() for path in (run / "checkpoints").rglob("*.*")}
        for run in (tmp_path / "straight", tmp_path / "stopped")
    ]
    assert left == right


def test_while_the_choice_to_compile_is_measured(stopped_at):
    assert stopped_at(Update, "loss_of", 3) == 0


def test_while_images_are_waited_for(tmp_path, monkeypatch):
    """A signal does not wait until slow images are there: the patience is a minute here."""
    photos = tmp_path / "photos"
    for name in ("dark", "light"):
        (photos / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (28, 28), i).save(photos / name / f"{i}.png")
    recipe = replace(
        RECIPE, data=replace(RECIPE.data, source=str(photos), root="", holdout=10, patience=60.0),
        model=replace(RECIPE.model, num_classes=2), batch_size=10, compile="off",
    )  # fmt: skip
    reads, loose = itertools.count(), threading.Event()
    healthy = pixels.read

    def slow(*arguments):
        if next(reads) == 25:
            os.kill(os.getpid(), signal.SIGTERM)
            loose.wait(60)
        return healthy(*arguments)

    monkeypatch.setattr(pixels, "read", slow)
    try:
        result = train(recipe, tmp_path / "run")
    finally:
        loose.set()
    assert result.interrupted == signal.SIGTERM and result.steps < 3


def test_ignored_signals_stay_ignored_and_the_others_are_put_back():
    """`nohup` ignores SIGHUP so that the run outlives the terminal."""
    interrupt, answers = Interrupt(), []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.listening(lambda: answers.append(interrupt.received)):
            os.kill(os.getpid(), signal.SIGHUP)
            interrupt.poll()
            os.kill(os.getpid(), signal.SIGINT)
            assert answers == [signal.SIGINT] and interrupt.received == signal.SIGINT
            time.sleep(SAME_EVENT + 0.1)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Interrupted):
                interrupt.poll()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)


HEEDLESS = {
    "computing": "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",  # minutes, outside of Python
    "catching": "wait_whatever_comes()",
}
PROGRAM = """
import hashlib, time
from mixerkit.training.interrupt import Interrupt, second_ends_at_once

def wait_whatever_comes():
    end = time.monotonic() + 100
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            pass

with second_ends_at_once(), Interrupt().listening(lambda: print("saving", flush=True)):
    print("ready", flush=True)
    {heedless}
"""


@pytest.mark.parametrize("numbers", [(2, 2), (15, 15), (2, 15), (15, 2), (1, 2)])
@pytest.mark.parametrize("case", HEEDLESS)
def test_a_second_signal_ends_a_program_that_heeds_nothing(case, numbers):
    program = PROGRAM.format(heedless=HEEDLESS[case])
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        for number in numbers:
            time.sleep(SAME_EVENT + 0.2)
            process.send_signal(number)
        began = time.monotonic()
        code = process.wait(60)
        assert time.monotonic() - began < 3
        assert code in (128 + numbers[1], -numbers[1])
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("numbers", [(15, 1), (1, 15), (2, 15, 1), (15, 15), (1, 1, 1)])
def test_signals_of_one_event_count_as_one(numbers):
    """systemd sends SIGTERM and SIGHUP, `timeout` the same twice."""
    program = PROGRAM.format(heedless="time.sleep(1.5); print('saved', flush=True)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.01)
        assert process.stdout.read() == b"saving\nsaved\n"
        assert process.wait(60) == 0 and process.stderr.read() == b""


FORK = """
import os, time
child = os.fork()
if not child:
    signal.signal(signal.SIGINT, lambda *_: None)
    print(os.getpid(), flush=True)
time.sleep(3)
if child:
    os.waitpid(child, 0)
    print("saved", flush=True)
"""


def test_signals_of_a_forked_child_are_none_of_the_program():
    program = PROGRAM.format(heedless="import signal; exec(FORK)")
    program = f"FORK = {FORK!r}\n{program}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        child = int(process.stdout.readline())
        for _ in range(2):
            os.kill(child, signal.SIGINT)
            time.sleep(SAME_EVENT + 0.2)
        assert process.stdout.read() == b"saved\n"
        assert process.wait(60) == 0


def test_outside_of_it_signals_do_what_they_did():
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with second_ends_at_once():
        pass
    assert signal.set_wakeup_fd(-1) == before
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_is_answered_with_what_a_second_one_would_lose(tmp_path):
    watch = StopAt(20, signal.SIGINT)
    train(
        replace(RECIPE, save=replace(RECIPE.save, every="15 steps")), tmp_path / "run", watch=watch
    )
    assert any(
        "a second signal stops at once and loses what came after step 15" in line
        for line in watch.lines
    )


def test_while_saving(stopped_at):
    assert stopped_at(checkpoints, "write_tensors", 2) == 14


def test_training_time_adds_up_over_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Update, "loss_of", raise_signal_at(7 + 30, Update.loss_of))
        first = train(RECIPE, tmp_path / "run")
    second = train(RECIPE, tmp_path / "run", resume=True)
    assert 0 < first.seconds < second.seconds
