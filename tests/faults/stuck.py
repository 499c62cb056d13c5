"""Reading threads that hang or die (F10): whoever reads is told in time, and nothing stays behind.

A trial lets one file hang or fail while a loader, a training run or a whole command reads it.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from mixerkit.data import decode
from mixerkit.data.draws import shuffled
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.sources import ImageSplit, open_source
from mixerkit.errors import EXIT_FAILED, RunFailed
from mixerkit.inference.predictor import predict_files
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment, Data, Recipe, Save
from mixerkit.training.loop import train
from tests.faults.fault import Fault, Trial
from tests.faults.sample import newest_step, reached_step
from tests.training.runs import RECIPE as SMALL_RUN, assert_same_end

SIDE, COUNT, BATCH = 28, 60, 10
SEED, EPOCH = 7, 1
PATIENCE = 0.5
SECONDS = 60
"""Within which whoever reads must be told, and a run be saved and ended."""

NAMES = ("china", "flower")
PREPROCESS = Preprocess(SIDE, 1, class_names=NAMES)

# The indices of the images of a batch, and what came out of it.
Item = tuple[list[int], Any]
Harm = Callable[[Path], Any]


@dataclass(frozen=True)
class Material:
    """Photographs, a model, and a run on them that nothing disturbed."""

    photos: Path
    model: MlpMixer
    recipe: Recipe
    straight: Path
    reads: int


def prepare(folder: Path) -> Material:
    photos = folder / "photos"
    for name, pixels in zip(NAMES, load_sample_images().images, strict=True):
        (photos / name).mkdir(parents=True)
        grey = Image.fromarray(pixels).convert("L")
        for i in range(COUNT // 2):
            box = (i * SIDE // 2, i * 9, i * SIDE // 2 + SIDE, i * 9 + SIDE)
            grey.crop(box).save(photos / name / f"{name}-{i:02}.png")
    model = MlpMixer(variant("N/7", in_channels=1, num_classes=2, width=8, depth=1))
    torch.nn.init.normal_(model.head.weight)
    model.preprocess = PREPROCESS
    recipe = run_recipe(photos)
    with counted_reads() as reads:
        train(recipe, folder / "straight")
    return Material(photos, model, recipe, folder / "straight", len(reads))


def run_recipe(photos: Path) -> Recipe:
    """Every image is read in every epoch, for nothing is kept in memory."""
    data = Data(
        source=str(photos),
        holdout=10,
        memory=0.0,
        workers=2,
        patience=2 * PATIENCE,
        max_unreadable=0.0,
    )
    return replace(
        SMALL_RUN, data=data, model=replace(SMALL_RUN.model, num_classes=2), batch_size=10,
        duration="2 epochs", save=Save(every="2 epochs"), compile="off", threads=1,
    )  # fmt: skip


@contextmanager
def counted_reads() -> Iterator[list[Path]]:
    """Every file that is read, in the order of their beginning."""
    paths: list[Path] = []
    with on_reading(paths.append):
        yield paths


@contextmanager
def on_reading(act: Callable[[Path], Any]) -> Iterator[None]:
    """`act` is called in the thread that is about to read a file."""
    content = decode._content

    def acting(path: Path) -> bytes:
        act(path)
        return content(path)

    with patch.object(decode, "_content", acting):
        yield


def training(split: ImageSplit, crop: str, **reading: Any) -> Iterator[Item]:
    augment = Augment(crop=crop, shift=1, mixup=0.2)
    loader = TrainLoader(
        split, PREPROCESS, augment, batch_size=BATCH, seed=SEED, memory=0.0, **reading
    )
    order = shuffled(SEED, EPOCH, COUNT).reshape(-1, BATCH).tolist()
    for indices, batch in zip(order, loader.epoch(EPOCH), strict=True):
        yield indices, (batch.images.numpy().tobytes(), batch.targets.numpy().tobytes())


def evaluation(split: ImageSplit, **reading: Any) -> Iterator[Item]:
    loader = EvaluationLoader(split, PREPROCESS, batch_size=BATCH, memory=0.0, **reading)
    order = np.arange(COUNT).reshape(-1, BATCH).tolist()
    for indices, (images, labels) in zip(order, loader, strict=True):
        yield indices, (images.numpy().tobytes(), labels.tolist())


def prediction(split: ImageSplit, model: MlpMixer, **reading: Any) -> Iterator[Item]:
    found = predict_files(model, split.paths, batch_size=BATCH, keep_going=True, **reading)
    for indices in np.arange(COUNT).reshape(-1, BATCH).tolist():
        yield indices, [next(found).classes for _ in indices]


def some_loader(random: Random, model: MlpMixer) -> Callable[..., Iterator[Item]]:
    """A way to read all images of a split, as a function of split, workers and patience."""
    return random.choice(
        (
            lambda split, **reading: training(split, "none", **reading),
            lambda split, **reading: training(split, "inception", **reading),
            evaluation,
            lambda split, **reading: prediction(split, model, **reading),
        )
    )


def assert_told(trial: Trial, harm: Callable[[Path, ExitStack], None], message: str) -> None:
    """One file is harmed: the batches before it are exact, and then the error names it."""
    split = open_source(str(copied(trial))).train
    read = some_loader(trial.random, trial.shared.model)
    reading = {"workers": trial.random.choice((0, 1, 2, 3)), "patience": PATIENCE}
    clean = list(read(split, workers=1))
    victim = trial.random.randrange(COUNT)
    threads, started, found = foreground(), time.monotonic(), []
    with ExitStack() as stack:
        harm(split.paths[victim], stack)
        try:
            found.extend(read(split, **reading))
            raise AssertionError("nothing was said")
        except RunFailed as error:
            assert split.paths[victim].name in str(error) and message in str(error), error
        assert time.monotonic() - started < SECONDS
        assert foreground() == threads
    assert found == clean[: len(found)]
    assert victim in clean[len(found)][0]
    assert_no_reader_left()


def copied(trial: Trial) -> Path:
    return Path(shutil.copytree(trial.shared.photos, trial.folder / "photos"))


def foreground() -> set[threading.Thread]:
    """The threads that would hold up the end of the program."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def assert_no_reader_left() -> None:
    """Once nothing hangs any more."""
    for thread in threading.enumerate():
        if thread.name == "mixerkit reader":
            thread.join(SECONDS)
            assert not thread.is_alive()


def hang(victim: Path, stack: ExitStack) -> None:
    """The thread waits for something that never comes, until the stack is left."""
    loose = threading.Event()
    stack.callback(loose.set)
    stack.enter_context(on_reading(lambda path: path != victim or loose.wait()))


def hang_in_the_system(victim: Path, stack: ExitStack) -> None:
    """The system call that opens the file does not return: it is a pipe, and this is overlooked."""
    victim.unlink()
    os.mkfifo(victim)
    stack.callback(lambda: os.close(os.open(victim, os.O_RDWR)))
    stack.enter_context(patch.object(decode, "stat", SimpleNamespace(S_ISREG=lambda _: True)))


def die_of(error: type[BaseException]) -> Callable[[Path, ExitStack], None]:
    def harm(victim: Path, stack: ExitStack) -> None:
        def act(path: Path) -> None:
            if path == victim:
                raise error

        stack.enter_context(on_reading(act))

    return harm


def slow_disk(trial: Trial) -> None:
    """Files that take their time, but less than the patience, change nothing."""
    split = open_source(str(trial.shared.photos)).train
    read = some_loader(trial.random, trial.shared.model)
    clean = list(read(split, workers=1))
    slow = set(trial.random.sample(split.paths, 10))
    with on_reading(lambda path: time.sleep(0.05) if path in slow else None):
        for workers in (0, 1, 2):
            assert list(read(split, workers=workers)) == clean


def hanging_run(trial: Trial) -> None:
    """A run that hangs at any read saves the step it has reached, stops, and goes on to the same
    end."""
    material: Material = trial.shared
    at, run = trial.random.randrange(material.reads), trial.folder / "run"
    with ExitStack() as stack, counted_reads() as reads:
        loose = threading.Event()
        stack.callback(loose.set)
        stack.enter_context(on_reading(lambda _: len(reads) != at or loose.wait()))
        started = time.monotonic()
        try:
            train(material.recipe, run)
            raise AssertionError("nothing was said")
        except RunFailed as error:
            assert "in vain" in str(error), error
        assert time.monotonic() - started < SECONDS
    assert newest_step(run) == reached_step(run), "steps were lost"
    train(material.recipe, run, resume=run.exists())
    assert_same_end(material.straight, run)
    assert_no_reader_left()


COMMAND = """
import sys
from types import SimpleNamespace
from mixerkit.cli.main import main
from mixerkit.data import decode
decode.stat = SimpleNamespace(S_ISREG=lambda mode: True)
sys.exit(main(sys.argv[1:]))
"""


def hanging_command(trial: Trial) -> None:
    """`mixer evaluate` ends although a thread of it still hangs in a system call."""
    photos = copied(trial)
    victim = trial.random.choice(sorted(photos.rglob("*.png")))
    victim.unlink()
    os.mkfifo(victim)
    words = ["evaluate", str(trial.shared.straight), "--data.source", str(photos)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, f"--data.patience={PATIENCE}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == EXIT_FAILED and "Traceback" not in done.stderr, done.stderr
    assert victim.name in done.stderr and "in vain" in done.stderr, done.stderr


KINDS: tuple[Callable[[Trial], None], ...] = (
    lambda trial: assert_told(trial, hang, "in vain"),
    hanging_run,
    lambda trial: assert_told(trial, die_of(MemoryError), "MemoryError"),
    lambda trial: assert_told(trial, hang_in_the_system, "in vain"),
    lambda trial: assert_told(trial, die_of(SystemExit), "SystemExit"),
    slow_disk,
    lambda trial: assert_told(trial, die_of(KeyboardInterrupt), "KeyboardInterrupt"),
    hanging_command,
)

FAULTS = (
    Fault(
        "F10",
        "a thread that reads images hangs, also in a system call, or dies of MemoryError, "
        "SystemExit or KeyboardInterrupt; slow files",
        "the batches before are exact, an error names the file within 60 s, a run saves the "
        "step it has reached and goes on to the same weights, bit for bit; no thread stays",
        trials=40,
        short=4,
        run=lambda trial: KINDS[trial.number % len(KINDS)](trial),
        prepare=prepare,
    ),
)
