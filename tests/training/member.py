"""One of several processes of a test: python -m tests.training.member FOLDER

Trains every FOLDER/*.yaml into the folder of the same name, with the processes that were started
with it; goes on where there is a run. FOLDER/NAME-seen-RANK.jsonl: the images that this one saw.
"""

import math
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mixerkit import launch
from mixerkit.checkpoint.opening import is_run
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.errors import RunFailed
from mixerkit.spec.recipes import recipe
from mixerkit.training.distributed import joined
from mixerkit.training.loop import train
from tests.training.seen import log_into


def fail(what: str) -> None:
    """Have the second process fail in this way at step 12, or when it first measures."""
    if not what or launch.rank() != 1:
        return
    loader = EvaluationLoader if what == "measuring" else TrainLoader
    name = "__iter__" if what == "measuring" else "epoch"
    plain = getattr(loader, name)

    def failing(self: Any, *arguments: int) -> Iterator[Any]:
        for number, batch in enumerate(plain(self, *arguments), 1):
            if what == "measuring":
                raise RunFailed("it cannot measure")
            at = arguments[0] * self.steps_per_epoch + number
            if at == 12 and what == "reading":
                raise RunFailed("it cannot read")
            if at == 12 and what == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            if at == 12 and what == "nan":
                batch = replace(batch, targets=batch.targets * math.nan)
            yield batch

    setattr(loader, name, failing)


def share_devices() -> None:
    """Where there are fewer GPUs than processes, all compute on the first one and talk by gloo:
    the tensors are a GPU's, which is what this can test of it. NCCL refuses to share."""
    if not 0 < torch.cuda.device_count() < launch.processes():
        return
    torch.cuda.device_count = launch.processes  # type: ignore[assignment]
    torch.cuda.set_device = lambda number: None  # type: ignore[assignment]
    plain = dist.init_process_group
    dist.init_process_group = lambda backend, **settings: plain("gloo", **settings)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    share_devices()
    with joined() as world:
        for path in sorted(folder.glob("*.yaml")):
            out = path.with_suffix("")
            resume = world.after_first(lambda out=out: is_run(out))
            log_into(folder / f"{path.stem}-seen-{launch.rank()}.jsonl")
            fail(os.environ.get("MEMBER_FAILS", ""))
            train(recipe(str(path)), out, resume=resume)


if __name__ == "__main__":
    main()
