"""A model's way over a split, by all processes that torchrun started, while a person watches."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from mixerkit.cli.counting import Counting
from mixerkit.cli.images import Images
from mixerkit.cli.progress import Console
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.quarantine import Unreadable, none_usable
from mixerkit.data.sources import ImageSplit
from mixerkit.device import device_here, memory_told
from mixerkit.evaluation.passes import Passes, batch_for, fitting, in_order, passes
from mixerkit.inference.module import ExportedModel
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from mixerkit.training.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What was found of the images of a split that could be used: the indices `usable`."""

    passes: Passes
    usable: np.ndarray
    unreadable: list[Unreadable]


def measured(
    model: MlpMixer | ExportedModel,
    split: ImageSplit,
    preprocess: Preprocess,
    images: Images,
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
            workers=images.workers,
            memory=0.0,  # no image is asked for twice
            patience=images.patience,
            skip_broken=skip_broken,
            part=(world.rank, world.size),
        )
        loaders.append(loader)
        return loader

    console = Console(sys.stderr if world.is_first else io.StringIO())
    counted = Counting(console, "images", -(-len(split) // world.size))
    classes = len(split.class_names) if world.size > 1 else 0
    with world.agreed():
        model = model.to(device_here())
        found = in_batches(
            model, batch_size, lambda size: passes(model, loader_of, size, counted, classes)
        )
    return _of_all(world, split, Measured(found, loaders[-1].usable, loaders[-1].unreadable))


def in_batches(model: MlpMixer | ExportedModel, batch_size: int, attempt: Callable[[int], T]) -> T:
    """What `attempt` gives with batches of so many images; where `batch_size` is 0, of a size that
    suits the memory. Where that is too little, the error names the size that was tried last."""
    tried = batch_size or batch_for(model.config)

    def noted(size: int) -> T:
        nonlocal tried
        tried = size
        return attempt(size)

    with memory_told(lambda: fewer_than(tried)):
        return fitting(noted, tried, may_shrink=not batch_size)


def fewer_than(batch_size: int) -> str:
    """What to do where so many images at once are too much."""
    if batch_size > 1:
        return f"Give a --batch-size below {batch_size}."
    return "It does not take a single image: free some, or take another machine."


def _of_all(world: World, split: ImageSplit, own: Measured) -> Measured | None:
    """Of several processes, what the first one puts together, in the order of the split."""
    parts = world.first_hears(own)
    unreadable = [one for part in parts for one in part.unreadable]
    unreadable.sort(key=lambda one: one.index)
    with world.agreed():  # a process that got few images may find none of its own usable
        if parts and not any(len(part.usable) for part in parts):
            raise none_usable(split, unreadable)
    if len(parts) < 2:
        return parts[0] if parts else None
    usable, found, labels = in_order(
        [(part.usable, part.passes.probabilities, part.passes.labels) for part in parts]
    )
    together = replace(
        own.passes,
        probabilities=found,
        labels=labels,
        seconds=max(part.passes.seconds for part in parts),
        waiting=float(np.mean([part.passes.waiting for part in parts])),
    )
    return Measured(together, usable, unreadable)
