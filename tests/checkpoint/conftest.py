"""Small runs, models and checkpoints, and ways to break them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixerkit.checkpoint.run import RunFolder
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Recipe

TINY = MixerConfig(
    image_size=8,
    patch_size=4,
    in_channels=1,
    width=6,
    depth=2,
    token_width=5,
    channel_width=7,
    num_classes=3,
)


def tensors_of(step: int) -> dict[str, Tensor]:
    """Tensors of several kinds of numbers, other ones at every step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model.stem.weight": torch.randn(3, 4, generator=generator),
        "optimizer.0.momentum": torch.randn(5, generator=generator, dtype=torch.float64),
        "ema.stem.weight": torch.randn(3, generator=generator).bfloat16(),
        "optimizer.0.step": torch.tensor(step),
    }


def row_of(step: int, split: str = "train", **more: object) -> dict[str, object]:
    """A row of metrics.jsonl."""
    return {"step": step, "split": split, **more}


def left_out(file: str) -> dict[str, object]:
    """A row of quarantine.jsonl."""
    return {"split": "train", "index": 3, "file": file, "reason": "cut short"}


class Killed(BaseException):
    """Stands for kill -9: no handler runs after it (see `kill_at`)."""


@pytest.fixture
def recipe() -> Recipe:
    """A recipe of the tiny model."""
    return Recipe(name="tiny", model=TINY)


@pytest.fixture
def model() -> MlpMixer:
    """A tiny model whose every number is random, the head too."""
    tiny = MlpMixer(TINY)
    for parameter in tiny.parameters():
        torch.nn.init.normal_(parameter)
    return tiny


@pytest.fixture
def preprocess() -> Preprocess:
    """What goes with the tiny model."""
    return Preprocess(image_size=8, channels=1, class_names=("a", "b", "c"))


@pytest.fixture
def run(run_path: Path, recipe: Recipe):
    """A new run, open for writing."""
    with RunFolder.create(run_path, recipe) as created:
        yield created


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`kill_at(n)`: the n-th call from now that changes names or syncs ends the process.

    From then on nothing can be synced, renamed or removed, so that clean-up code, which a
    killed process would not run, changes nothing either. A folder's removal is cut half way.
    """
    unlink, removal = os.unlink, shutil.rmtree

    def arm(remaining: int) -> None:
        left = remaining

        def hooked(original: Callable) -> Callable:
            def call(*args, **kwargs):
                nonlocal left
                if left <= 0:
                    raise Killed
                left -= 1
                if left == 0:
                    if original is removal:
                        unlink(next(path for path in args[0].rglob("*") if path.is_file()))
                    raise Killed
                return original(*args, **kwargs)

            return call

        for module, name in [(os, "fsync"), (os, "rename"), (os, "unlink"), (shutil, "rmtree")]:
            monkeypatch.setattr(module, name, hooked(getattr(module, name)))

    return arm


def flip_bit(path: Path, position: int) -> None:
    """Turn over one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
