"""What the transfer protocol fine-tunes on: the paper's five tasks, or your own in a YAML file.

    name: birds and leaves
    tasks:
      birds: {data: photos/birds, steps: 500, rates: [0.003, 0.01], held_out: 0.1}
      leaves: {data: photos/leaves}

As in a recipe, `data` is relative to the folder in which the command runs.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixerkit.errors import UserError
from mixerkit.spec.choices import check_whole
from mixerkit.spec.fine_tuning import PAPER_RECIPES, TASKS
from mixerkit.spec.paper import FINE_TUNING
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml, shown


@dataclass(frozen=True)
class Task:
    """One set of images. `recipe`: how a model is fine-tuned on it while rates are compared;
    `rates`: the peaks of the learning rate that are tried; `may_shrink`: whether its batch becomes
    smaller where the images do not fill it."""

    name: str
    title: str
    recipe: Recipe
    rates: tuple[float, ...]
    may_shrink: bool = False


@dataclass(frozen=True)
class Suite:
    """Tasks whose accuracies are averaged, and what the average is called. `weights`: the checksum
    of the model that is fine-tuned."""

    name: str
    average: str
    tasks: tuple[Task, ...]
    weights: str = ""


def average_5() -> Suite:
    """The paper's five tasks."""
    rates = {row.task: row.lrs for row in FINE_TUNING}
    tasks = [
        Task(name, title, PAPER_RECIPES[f"finetune-{name}"](), rates[name])
        for name, (title, _) in TASKS.items()
    ]
    return Suite("avg5", "Avg 5", tuple(tasks))


@dataclass(frozen=True)
class OwnTask:
    """A task of a suite in a YAML file."""

    data: str = ""
    """A folder with one sub-folder per class, or a named set."""
    title: str = ""
    steps: int = 500
    warmup: int | None = None
    """Steps; a fifth of all if not given."""
    batch_size: int | None = None
    """Images of a step. If not given, the paper's 512, or where the images do not fill that the
    largest power of two that they fill."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    held_out: float = 0.1
    """Of the training images, while rates are compared: a share, or a number."""

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError(
                "data is not given: expected a folder with one sub-folder per class, or a named "
                "set, such as 'data: photos/birds'."
            )
        check_whole("steps", self.steps, least=1)
        check_whole("warmup", self.warmup_steps, least=0)
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"warmup must be shorter than the run of {self.steps} steps, found {self.warmup}: "
                f"leave it out for a fifth of the run."
            )
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, least=1)
        if not self.held_out > 0:
            raise UserError(
                f"held_out must be above 0, a share of the training images or a number of them: "
                f"rates are compared on those, found {self.held_out:g}."
            )
        names = {f"{rate:g}" for rate in self.rates}
        if not self.rates or min(self.rates) <= 0 or len(names) < len(self.rates):
            raise UserError(
                f"rates must be learning rates above 0, at least one and all different, found "
                f"{list(self.rates)}."
            )

    @property
    def warmup_steps(self) -> int:
        """As given, or a fifth of the run."""
        return self.steps // 5 if self.warmup is None else self.warmup


def read_suite(path: Path) -> Suite:
    """A suite in a YAML file (the head of this module shows one)."""
    values = read_yaml(path)
    tasks = values.get("tasks")
    if not isinstance(tasks, dict) or not tasks or set(values) - {"name", "tasks"}:
        raise UserError(
            f"{path}: expected 'name' and 'tasks', a mapping of names to settings such as 'birds: "
            f"{{data: photos/birds}}', found {shown(values)}."
        )
    made = [_own(str(name), given, path) for name, given in tasks.items()]
    return Suite(str(values.get("name", path.stem)), f"Avg {len(made)}", tuple(made))


def _own(name: str, given: Any, path: Path) -> Task:
    try:
        own = from_dict(OwnTask, given, f"tasks.{name}")
        recipe = _recipe_of(own, name)
    except UserError as error:
        raise UserError(f"{path}: tasks.{name}: {error}") from error
    return Task(name, own.title or name, recipe, own.rates, may_shrink=own.batch_size is None)


def _recipe_of(own: OwnTask, name: str) -> Recipe:
    """The paper's recipe for small sets, with what a task says itself."""
    base = PAPER_RECIPES["finetune-pets"]()
    every = f"{max(1, own.steps // 20)} steps"
    recipe = replace(
        base,
        name=f"finetune-{name}",
        data=replace(base.data, source=own.data, holdout=own.held_out),
        schedule=replace(base.schedule, warmup=f"{own.warmup_steps} steps"),
        evaluate=replace(base.evaluate, every=every),
        save=replace(base.save, every=every),
        duration=f"{own.steps} steps",
    )
    return recipe if own.batch_size is None else batched(recipe, own.batch_size)


def batched(recipe: Recipe, size: int) -> Recipe:
    """The recipe with batches of `size`, in micro-batches of as many images as its own where those
    make up a batch, else in one."""
    micro = recipe.batch_size // recipe.accumulation
    parts = size // micro if size % micro == 0 else 1
    return replace(recipe, batch_size=size, accumulation=parts)


def rehearsed(recipe: Recipe, steps: int) -> Recipe:
    """The recipe cut to `steps`, a fifth of them warm-up."""
    every = f"{steps} steps"
    return replace(
        recipe,
        schedule=replace(recipe.schedule, warmup=f"{steps // 5} steps"),
        save=replace(recipe.save, every=every),
        duration=every,
    )


def filled(task: Task, images: int) -> Task:
    """The task with a batch that so many training images fill, where its batch may shrink."""
    if not task.may_shrink or images >= task.recipe.batch_size:
        return task
    return replace(task, recipe=batched(task.recipe, 1 << (images.bit_length() - 1)))
