"""The paper's transfer protocol: fine-tune on each task, and average.

For every task the learning rates of a grid are tried on images that are held out; the best one then
trains on everything, and the test images are looked at once. "Avg 5" is the mean over ImageNet,
CIFAR-10, CIFAR-100, Pets and Flowers (section 3, table 4 of the authors' ViT).

    choose/    a study folder: every task with every rate
    final/     another: every task with its best rate

Every trial is a run folder, so that any number of processes can work on both, and go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.fine_tuning import PAPER_RECIPES, TASKS
from mixerkit.spec.mixer import Size
from mixerkit.spec.paper import FINE_TUNING, RESULTS, PublishedResult
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml, shown
from mixerkit.study.grid import Configuration, Trials
from mixerkit.study.runner import Row, StudyFolder


@dataclass(frozen=True)
class Task:
    """One set of images. `recipe`: how a model is fine-tuned on it while rates are compared;
    `rates`: the peaks of the learning rate that are tried."""

    name: str
    title: str
    recipe: Recipe
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Suite:
    """Tasks whose accuracies are averaged, and what the average is called."""

    name: str
    average: str
    tasks: tuple[Task, ...]


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

    data: str
    """A folder with one sub-folder per class, or a named set."""
    title: str = ""
    steps: int = 500
    warmup: int = 100
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    held_out: float = 0.1
    """Of the training images, while rates are compared: a share, or a number."""


def read_suite(path: Path) -> Suite:
    """A suite in a YAML file:

    name: birds and leaves
    tasks:
      birds: {data: photos/birds, steps: 500}
      leaves: {data: photos/leaves, rates: [0.01, 0.03]}
    """
    values = read_yaml(path)
    tasks = values.get("tasks")
    if not isinstance(tasks, dict) or not tasks or set(values) - {"name", "tasks"}:
        raise UserError(
            f"{path}: expected 'name' and 'tasks', a mapping of names to settings such as 'birds: "
            f"{{data: photos/birds}}', found {shown(values)}."
        )
    base = PAPER_RECIPES["finetune-pets"]()
    made = [_own(str(name), given, base, path) for name, given in tasks.items()]
    return Suite(str(values.get("name", path.stem)), f"Avg {len(made)}", tuple(made))


def _own(name: str, given: Any, base: Recipe, path: Path) -> Task:
    try:
        task = from_dict(OwnTask, given, f"tasks.{name}")
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: tasks.{name}: {error}") from error
    every = f"{max(1, task.steps // 20)} steps"
    recipe = replace(
        base,
        name=f"finetune-{name}",
        data=replace(base.data, source=task.data, holdout=task.held_out),
        schedule=replace(base.schedule, warmup=f"{task.warmup} steps"),
        evaluate=replace(base.evaluate, every=every),
        save=replace(base.save, every=every),
        duration=f"{task.steps} steps",
    )
    return Task(name, task.title or name, recipe, task.rates)


PAPER = {
    f"zoo:{label}{patch}-{data}-google": (f"Mixer-{label.upper()}/{patch}", short)
    for label, patch in (("b", 16), ("l", 16))
    for data, short in (("imagenet1k", "i1k"), ("imagenet21k", "i21k"))
}
"""Stored models that table 3 has a row of."""


def published_for(model: str, image_size: Size) -> PublishedResult | None:
    """The paper's row for a stored model that is fine-tuned at this size, where there is one."""
    if model not in PAPER:
        return None
    label, data = PAPER[model]
    rows = [row for row in RESULTS if (row.model, row.data) == (label, data)]
    return next((row for row in rows if row.image_size == image_size), None)


def choosing(suite: Suite) -> Trials:
    """Every task with every rate, on held-out images; the test images are not read."""
    listed = [
        _trial(suite, task, rate, replace(task.recipe, evaluate=_at_the_end(task.recipe, False)))
        for task in suite.tasks
        for rate in task.rates
    ]
    return Trials(f"{suite.name}-choose", tuple(listed))


def final(suite: Suite, chosen: dict[str, float]) -> Trials:
    """Every task with its rate (by name), on all training images."""
    listed = []
    for task in suite.tasks:
        everything = replace(
            task.recipe,
            data=replace(task.recipe.data, holdout=0.0, join_validation=True),
            evaluate=_at_the_end(task.recipe, True),
        )
        listed.append(_trial(suite, task, chosen[task.name], everything))
    return Trials(f"{suite.name}-final", tuple(listed))


def _at_the_end(recipe: Recipe, test: bool) -> Any:
    return replace(recipe.evaluate, every=recipe.duration, test=test)


def _trial(suite: Suite, task: Task, rate: float, recipe: Recipe) -> Configuration:
    optimizer = replace(recipe.optimizer, lr=rate)
    settings = replace(recipe, name=suite.name, optimizer=optimizer)
    return Configuration({"task": task.name, "rate": f"{rate:g}"}, settings)


def best_rates(suite: Suite, folder: StudyFolder) -> dict[str, float]:
    """By task the rate with the best held-out accuracy, of equal ones the smallest. Trials whose
    figures became NaN do not count; `RunFailed` where all of a task did."""
    rows = [row for _, row in folder.rows() if "error" not in row]
    chosen = {}
    for task in suite.tasks:
        known = {
            rate: row["held_out_accuracy"]
            for rate in task.rates
            for row in rows
            if row["levels"] == {"task": task.name, "rate": f"{rate:g}"}
        }
        if not known:
            raise RunFailed(f"Every rate of {task.title} failed: give others, with a suite's file.")
        chosen[task.name] = min(known, key=lambda rate: (-known[rate], rate))
    return chosen


def table_of(suite: Suite, choose: StudyFolder, last: StudyFolder) -> list[Row]:
    """A row for each task, and one for the average over all of them where all have their figure:
    the rate, held-out accuracy with it, and test accuracy, as shares."""
    chosen = best_rates(suite, choose)
    tried = {tuple(row["levels"].values()): row for _, row in choose.rows()}
    tested = {row["levels"]["task"]: row for _, row in last.rows()}
    found: list[Row] = []
    for task in suite.tasks:
        rate, row = chosen[task.name], tested.get(task.name, {})
        found.append(
            {
                "task": task.name,
                "title": task.title,
                "rate": rate,
                "held_out_accuracy": tried[task.name, f"{rate:g}"]["held_out_accuracy"],
                "test_accuracy": row.get("test_accuracy"),
                "seconds": row.get("seconds"),
                "error": row.get("error", ""),
            }
        )
    return [*found, *_average(suite, found)]


def _average(suite: Suite, found: Sequence[Row]) -> list[Row]:
    known = [row["test_accuracy"] for row in found]
    if None in known:
        return []
    held_out = mean(row["held_out_accuracy"] for row in found)
    about = {"task": "average", "title": suite.average, "rate": None}
    return [about | {"held_out_accuracy": held_out, "test_accuracy": mean(known)}]
