"""A small run in which every part whose state could be lost is at work, and comparing two runs."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Augment, Data, Evaluate, Loss, Optimizer, Recipe, Save
from mixerkit.training.progress import Progress

SAMPLE = Path(__file__).parents[1] / "samples" / "fashion-mnist"

# Every part whose state could be lost on the way: EMA, accumulation, dropout, stochastic
# depth, mixing, erasing.
RECIPE = Recipe(
    name="sample",
    model=variant(
        "N/7", in_channels=1, num_classes=10, width=16, depth=2, token_width=8,
        channel_width=32, dropout=0.1, drop_path=0.2,
    ),
    data=Data(source="fashion-mnist", root=str(SAMPLE), holdout=100),
    augment=Augment(shift=2, mixup=0.2, cutmix=1.0, erase=0.2),
    optimizer=Optimizer(name="muon", lr=0.02, adamw_lr=0.003, clip=1.0),
    loss=Loss(label_smoothing=0.05),
    evaluate=Evaluate(every="1 epoch"),
    save=Save(every="7 steps"),
    duration="3 epochs",
    batch_size=50,
    accumulation=2,
    ema=0.9,
)  # fmt: skip


class StopAt:
    """A watcher that sends this process a signal once a step is reached."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, now: Progress) -> None:
        if now.step >= self.step:
            self.step = 10**9
            os.kill(os.getpid(), self.number)


def final_tensors(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").glob("step-*"))
    return load_file(newest / "tensors.safetensors")


def assert_same_end(a: Path, b: Path) -> None:
    left, right = final_tensors(a), final_tensors(b)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    model = "model/model.safetensors"
    assert (a / model).read_bytes() == (b / model).read_bytes()
