"""A model's way over a split, by all processes that torchrun started, while a person watches."""

import io
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch

from mixerkit.cli.counting import Counting
from mixerkit.cli.progress import Console
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.quarantine import Unreadable
from mixerkit.data.sources import ImageSplit
from mixerkit.device import device_here, memory_told
from mixerkit.evaluation.passes import Passes, batch_for, passes
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Data
from mixerkit.training.world import World


@dataclass(frozen=True)
class Measured:
    """What was found of the images of a split that could be used: the indices `usable`."""

    passes: Passes
    usable: np.ndarray
    unreadable: list[Unreadable]


def measured(
    model: MlpMixer,
    split: ImageSplit,
    preprocess: Preprocess,
    data: Data,
    batch_size: int,
    skip_broken: bool,
    world: World,
) -> Measured | None:
    """The whole split, for the first process; None for the others. A `batch_size` of 0 is found."""
    loaders: list[EvaluationLoader] = []

    def loader_of(size: int) -> EvaluationLoader:
        loader = EvaluationLoader(
            split,
            preprocess,
            batch_size=size,
            workers=data.workers,
            memory=data.memory,
            patience=data.patience,
            skip_broken=skip_broken,
            part=(world.rank, world.size),
        )
        loaders.append(loader)
        return loader

    size = batch_size or batch_for(model.config)
    console = Console(sys.stderr if world.is_first else io.StringIO())
    with world.agreed(), memory_told(lambda: f"Give a --batch-size below {size}."):
        found = passes(
            model.to(device_here()),
            loader_of,
            size,
            Counting(console, "images", -(-len(split) // world.size)),
            classes=len(split.class_names) if world.size > 1 else 0,
            may_shrink=not batch_size,
        )
    return _of_all(world, Measured(found, loaders[-1].usable, loaders[-1].unreadable))


def _of_all(world: World, own: Measured) -> Measured | None:
    """Of several processes, what the first one puts together, in the order of the split."""
    if world.size == 1:
        return own
    parts = world.first_hears(own)
    if not parts:
        return None
    usable = np.concatenate([part.usable for part in parts])
    order = np.argsort(usable)
    rows = torch.from_numpy(order)
    together = replace(
        own.passes,
        probabilities=torch.cat([part.passes.probabilities for part in parts])[rows],
        labels=torch.cat([part.passes.labels for part in parts])[rows],
        seconds=max(part.passes.seconds for part in parts),
        waiting=float(np.mean([part.passes.waiting for part in parts])),
    )
    unreadable = [one for part in parts for one in part.unreadable]
    return Measured(together, usable[order], sorted(unreadable, key=lambda one: one.index))
