"""From a recipe to everything that a run is made of, except the run folder."""

from dataclasses import dataclass, replace

import numpy as np

from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.readers import Poll, nothing
from mixerkit.data.sources import ImageSplit, Splits, opened, thin_out
from mixerkit.data.splits import check_trainable
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess, preprocess_for
from mixerkit.spec.recipe import Recipe, parse_duration

LOG_ROWS = 200
NAMES_SHOWN = 10


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
    """The recipe's splits, with images held out or left out, and the recipe for their classes."""
    splits = check_trainable(opened(recipe.data))
    splits = thin_out(splits, recipe.data.share, recipe.data.split_seed)
    classes = len(splits.train.class_names)
    return replace(recipe, model=replace(recipe.model, num_classes=classes)), splits


def classes_text(names: tuple[str, ...], asked: int | None) -> str:
    """How many classes there are, the first few by name, and whether so many were `asked` for."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    differs = "" if asked in (None, len(names)) else f"; the recipe has {asked}, the data decide"
    return f"classes: {len(names)} ({shown}){differs}"


def images_text(splits: Splits) -> str:
    """How many images there are in each split."""
    others = (("held out", splits.validation), ("for the test", splits.test))
    shown = [f"{len(split):,} {what}" for what, split in others if split is not None]
    return ", ".join([f"images: {len(splits.train):,} for training", *shown])


def preprocess_of(recipe: Recipe, splits: Splits) -> Preprocess:
    """How this run's images become inputs."""
    return preprocess_for(recipe, splits.train.class_names)


def training_loader(
    recipe: Recipe, splits: Splits, poll: Poll = nothing, part: tuple[int, int] = (0, 1)
) -> TrainLoader:
    """The augmented training images, or a process's `part` of them (`TrainLoader`); `poll` is
    called while any are waited for."""
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
        part=part,
        scaled=recipe.data.scaled_decoding,
    )


def evaluation_loader(
    recipe: Recipe,
    splits: Splits,
    split: ImageSplit,
    poll: Poll = nothing,
    part: tuple[int, int] = (0, 1),
) -> EvaluationLoader:
    """The images of `split` as they are, in order, or a process's `part` of them
    (`EvaluationLoader`); `poll` is called while any are waited for."""
    return EvaluationLoader(
        split,
        preprocess_of(recipe, splits),
        batch_size=recipe.evaluate.batch_size,
        workers=recipe.data.workers,
        memory=recipe.data.memory,
        patience=recipe.data.patience,
        skip_broken=recipe.data.max_unreadable > 0,
        poll=poll,
        part=part,
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


def check_division(recipe: Recipe, processes: int) -> None:
    """`UserError` unless every process gets equal micro-batches."""
    parts = recipe.accumulation * processes
    if recipe.batch_size % parts:
        raise UserError(
            f"batch_size {recipe.batch_size} must be a multiple of {parts}: of the {processes} "
            f"processes times accumulation {recipe.accumulation}."
        )


def check_classes(loader: TrainLoader) -> None:
    """`UserError` for a class of which no image can be used: it cannot be learned. Of most classes
    one image is read, and no image of those that are in memory."""
    split = loader.split
    if split.images is not None:
        return
    ordered = np.argsort(split.labels, kind="stable")
    of_each = np.split(ordered, np.cumsum(class_counts(split))[:-1])
    firsts = np.array([members[0] for members in of_each if len(members)])
    for first, problem in loader.problems(firsts).items():
        label = int(split.labels[first])
        members = of_each[label]
        if _none_usable(loader, members[1:]):
            raise UserError(
                f"None of the {len(members)} images of the class '{split.class_names[label]}' in "
                f"{split.name} can be used, so that it cannot be learned. {problem} Replace them, "
                f"or take the class out."
            )


def _none_usable(loader: TrainLoader, members: np.ndarray) -> bool:
    """Looks until one can be used."""
    return all(loader.problems(members[place : place + 1]) for place in range(len(members)))


def class_counts(split: ImageSplit) -> np.ndarray:
    """Images of each class, [K]."""
    return np.bincount(split.labels, minlength=len(split.class_names))
