"""Which images each process of a run saw: python -m tests.training.seen WORDS… is `mixer WORDS…`
and writes seen-PID.jsonl into the folder that it is started in: a line for each image, with step,
position in the whole batch, and a checksum of what was made of it and of its target."""

import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixerkit.cli.main import main
from mixerkit.data.loader import Batch, TrainLoader

PLAIN = TrainLoader.epoch


def log_into(path: Path) -> None:
    """Have every loader write down its images from now on."""

    def epoch(self: TrainLoader, number: int, start: int = 0) -> Iterator[Batch]:
        first = number * self.steps_per_epoch + start
        for step, batch in enumerate(PLAIN(self, number, start), first):
            positions = np.arange(len(batch.images)) if batch.positions is None else batch.positions
            made = [
                zlib.crc32(image.numpy().tobytes() + target.numpy().tobytes())
                for image, target in zip(batch.images, batch.targets, strict=True)
            ]
            rows = [f"[{step}, {at}, {sum_}]\n" for at, sum_ in zip(positions, made, strict=True)]
            with path.open("a") as file:
                file.write("".join(rows))
            yield batch

    TrainLoader.epoch = epoch  # type: ignore[method-assign]


def seen(folder: Path, name: str = "") -> set[tuple[int, int, int]]:
    """What all processes saw whose files in `folder` begin with `name`; a line that a kill cut off
    is left out."""
    lines = [
        line
        for path in folder.glob(f"{name}seen-*.jsonl")
        for line in path.read_text().splitlines(keepends=True)
    ]
    return {tuple(json.loads(line)) for line in lines if line.endswith("]\n")}


if __name__ == "__main__":
    log_into(Path(f"seen-{os.getpid()}.jsonl"))
    sys.exit(main())
