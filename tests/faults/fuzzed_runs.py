"""The runs whose files are changed at random, and what reads them: lists, readers, a resume."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Augment, Evaluate, Save
from mixerkit.training import loop
from tests.faults.runs import make_run
from tests.training.runs import RECIPE as WHOLE

SHORT = replace(
    WHOLE,
    model=variant(
        "N/7", in_channels=1, num_classes=10, width=4, depth=1, token_width=4, channel_width=4
    ),
    augment=Augment(),
    evaluate=Evaluate(every="1 step", batch_size=100),
    save=Save(every="1 step"),
    duration="2 steps",
    compile="off",
    threads=1,
)
STEP = "checkpoints/step-00000002"


def make_runs(folder: Path) -> None:
    """`run`: small, for readers. `finished`: one that was trained to its end. `stopped`: the same
    before its model was kept, as a signal leaves it."""
    make_run(folder / "run", (1, 2))
    loop.train(SHORT, folder / "finished")
    shutil.copytree(folder / "finished", folder / "stopped")
    shutil.rmtree(folder / "stopped" / "model")
    (folder / "stopped" / "evaluation.json").unlink()
    for name in ("run", "stopped"):
        with RunFolder.open(folder / name, writing=True) as run:
            run.log_quarantine({"split": "training", "index": 3, "file": "a.png", "reason": "cut"})
    with RunFolder.open(folder / "run", writing=True) as run:
        run.save_choices({"threads": 1, "total_steps": 5})
        run.save_evaluation("test", {"figures": {"top1": 0.5}})


def read_run(path: Path) -> None:
    """What a reader asks of a run, each whatever the others say."""
    run = RunFolder.open(path)
    for ask in (run.choices, run.metrics, run.timings, run.evaluation, run.quarantine, run.state):
        with contextlib.suppress(UserError):
            ask()
    run.newest_checkpoint()


class Ready(Exception):
    """A resume has come to where it would train."""


def go_on_with_run(path: Path) -> None:
    """What `train` does with a run before it trains, or when there is nothing left to do."""
    threads = torch.get_num_threads()
    ready = mock.patch.object(loop._Training, "_choose", side_effect=Ready)
    try:
        with ready, contextlib.suppress(Ready):
            loop.train(SHORT, path, resume=True)
    finally:
        torch.set_num_threads(threads)
