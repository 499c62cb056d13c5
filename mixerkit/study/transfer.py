"""The paper's transfer protocol: fine-tune on each task, and average.

For every task the learning rates of a grid are tried on images that are held out; the best one then
trains on everything, and the test images are looked at once. "Avg 5" is the mean over ImageNet,
CIFAR-10, CIFAR-100, Pets and Flowers (section 3, table 4 of the authors' ViT).

    choose/    a study folder: every task with every rate
    final/     another: every task with its best rate

Every trial is a run folder, so that any number of processes can work on both, and go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean

from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import Evaluate, Recipe
from mixerkit.study.grid import Configuration, Trials
from mixerkit.study.rows import Row
from mixerkit.study.runner import StudyFolder
from mixerkit.study.transfer_broken import MOST
from mixerkit.study.transfer_suite import Suite, Task

CHOOSE, FINAL = "choose", "final"
"""Folders of the two stages."""


def choosing(suite: Suite) -> Trials:
    """Every task with every rate, on held-out images."""
    listed = [
        _trial(suite, task, rate, compared(task)) for task in suite.tasks for rate in task.rates
    ]
    return Trials(f"{suite.name}-choose", tuple(listed), suite.weights)


def final(suite: Suite, chosen: dict[str, float]) -> Trials:
    """Every task with its rate (by name), on all training images. The folder is for any choice:
    where a trial that failed is tried again, another rate may be the best."""
    trials = {
        (task.name, rate): _trial(suite, task, rate, tested(task))
        for task in suite.tasks
        for rate in task.rates
    }
    listed = [trials[task.name, chosen[task.name]] for task in suite.tasks]
    return Trials(f"{suite.name}-final", tuple(listed), suite.weights, tuple(trials.values()))


def compared(task: Task) -> Recipe:
    """How its rates are compared: on held-out images; the test images are not read."""
    recipe = replace(task.recipe, evaluate=_at_the_end(task.recipe, test=False))
    return _going_on(recipe)


def tested(task: Task) -> Recipe:
    """How it is trained on everything, and tested once."""
    everything = replace(task.recipe.data, holdout=0.0, join_validation=True)
    recipe = replace(task.recipe, data=everything, evaluate=_at_the_end(task.recipe, test=True))
    return _going_on(recipe)


def _going_on(recipe: Recipe) -> Recipe:
    """How many broken images are too many is for the protocol to say (transfer_broken.py), and can
    be answered otherwise later: a trial is the same in either case."""
    return replace(recipe, data=replace(recipe.data, max_unreadable=MOST))


def _at_the_end(recipe: Recipe, *, test: bool) -> Evaluate:
    return replace(recipe.evaluate, every=recipe.duration, test=test)


def _trial(suite: Suite, task: Task, rate: float, recipe: Recipe) -> Configuration:
    optimizer = replace(recipe.optimizer, lr=rate)
    settings = replace(recipe, name=suite.name, optimizer=optimizer)
    return Configuration({"task": task.name, "rate": f"{rate:g}"}, settings)


def best_rates(suite: Suite, folder: StudyFolder) -> dict[str, float]:
    """By task the rate with the best held-out accuracy, of equal ones the smallest. Trials whose
    figures became NaN do not count; `RunFailed` where all of a task did."""
    chosen = {}
    for task in suite.tasks:
        known = _held_out(task, folder)
        if not known:
            raise RunFailed(
                f"Every rate of {task.title} failed: try again with --again, or give others, with "
                f"a suite's file."
            )
        chosen[task.name] = min(known, key=lambda rate: (-known[rate], rate))
    return chosen


def _held_out(task: Task, folder: StudyFolder) -> dict[float, float]:
    """Held-out accuracy by rate, of trials that came to their end."""
    return {
        rate: row["held_out_accuracy"]
        for rate in task.rates
        for _, row in folder.rows()
        if row["levels"] == {"task": task.name, "rate": f"{rate:g}"} and "error" not in row
    }


def tie(task: Task, folder: StudyFolder, held_out: int) -> str:
    """What to say where several rates are equally good on so many held-out images; empty where one
    is the best."""
    known = _held_out(task, folder)
    best = sorted(rate for rate in known if known[rate] == max(known.values()))
    if len(best) < 2:
        return ""
    every = "all rates" if len(best) == len(known) else " and ".join(f"{r:g}" for r in best)
    images = f"{held_out:,} held-out image{'s' * (held_out != 1)}"
    return f"{task.title}: {every} equal on {images}: the smallest is taken."


def table_of(
    suite: Suite,
    choose: StudyFolder,
    last: StudyFolder,
    withheld: Mapping[str, str] | None = None,
) -> list[Row]:
    """A row for each task, and one for the average over all of them where all have their figure:
    the rate, held-out accuracy with it, and test accuracy, as shares. `withheld`: by task, why its
    test accuracy is not given."""
    why_not = withheld or {}
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
                "test_accuracy": None if task.name in why_not else row.get("test_accuracy"),
                "seconds": row.get("seconds"),
                "error": row.get("error", ""),
                "withheld": why_not.get(task.name, ""),
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
