"""From a recipe to everything that a run is made of, except the run folder."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.readers import Poll, nothing
from mixerkit.data.sources import ImageSplit, Splits, hold_out, open_source
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess, preprocess_for
from mixerkit.spec.recipe import Recipe, parse_duration

LOG_ROWS = 200


@dataclass(frozen=True)
class Steps:
    """The run's lengths in optimiser steps."""

    total: int
    per_epoch: int
    warmup: int
    log_every: int
    evaluate_every: int
    save_every: int

    def due(self, step: int, every: int) -> bool:
        """Whether what happens `every` so many steps happens after `step`: also at the end."""
        return step % every == 0 or step == self.total


def open_data(recipe: Recipe) -> tuple[Recipe, Splits]:
    """The recipe's splits with images held out, and the recipe with as many classes."""
    source = open_source(recipe.data.source, recipe.data.root)
    splits = hold_out(source, recipe.data.holdout, recipe.data.split_seed)
    classes = len(splits.train.class_names)
    return replace(recipe, model=replace(recipe.model, num_classes=classes)), splits


def preprocess_of(recipe: Recipe, splits: Splits) -> Preprocess:
    """How this run's images become inputs."""
    return preprocess_for(recipe, splits.train.class_names)


def training_loader(recipe: Recipe, splits: Splits, poll: Poll = nothing) -> TrainLoader:
    """The augmented training images; `poll` is called while any are waited for."""
    return TrainLoader(
        splits.train,
        preprocess_of(recipe, splits),
        recipe.augment,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        workers=recipe.data.workers,
        memory=recipe.data.memory,
        patience=recipe.data.patience,
        skip_broken=recipe.data.max_unreadable > 0,
        poll=poll,
    )


def evaluation_loader(
    recipe: Recipe, splits: Splits, split: ImageSplit, poll: Poll = nothing
) -> EvaluationLoader:
    """The images of `split` as they are, in order; `poll` is called while any are waited for."""
    return EvaluationLoader(
        split,
        preprocess_of(recipe, splits),
        batch_size=recipe.evaluate.batch_size,
        workers=recipe.data.workers,
        memory=recipe.data.memory,
        patience=recipe.data.patience,
        skip_broken=recipe.data.max_unreadable > 0,
        poll=poll,
    )


def count_steps(recipe: Recipe, samples: int) -> Steps:
    """The recipe's durations in steps, for `samples` training images."""

    def steps(text: str, total: int = 0) -> int:
        duration = parse_duration(text, share_allowed=True)
        return duration.steps(samples, recipe.batch_size, total)

    total = steps(recipe.duration)
    warmup = steps(recipe.schedule.warmup, total)
    if total < 1:
        raise UserError(f"duration: {recipe.duration!r} is less than one step.")
    if warmup >= total:
        raise UserError(
            f"schedule.warmup of {warmup} steps must be shorter than the run of {total}: "
            f"shorten it, or give a share such as '10 %'."
        )
    return Steps(
        total,
        samples // recipe.batch_size,
        warmup,
        max(1, total // LOG_ROWS),
        max(1, steps(recipe.evaluate.every)),
        max(1, steps(recipe.save.every)),
    )


def images_of(splits: Splits) -> str:
    """How many images there are, and a checksum of the training labels in their order."""
    labels = splits.train.labels
    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes()).hexdigest()
    held_out = len(splits.validation) if splits.validation is not None else 0
    return f"{len(labels)} for training, {held_out} held out, labels {digest[:12]}"


def class_counts(split: ImageSplit) -> np.ndarray:
    """Images of each class, [K]."""
    return np.bincount(split.labels, minlength=len(split.class_names))
