"""What the paper has for the same model after the same fine-tuning, and how far it is the same."""

from dataclasses import dataclass

from mixerkit.spec.mixer import Size
from mixerkit.spec.paper import RESULTS, PublishedResult
from mixerkit.study.transfer_suite import Suite, Task, average_5

MODELS = {
    f"zoo:{label}{patch}-{data}-google": (f"Mixer-{label.upper()}/{patch}", short)
    for label, patch in (("b", 16), ("l", 16))
    for data, short in (("imagenet1k", "i1k"), ("imagenet21k", "i21k"))
}
"""Stored models that table 3 has a row of."""


@dataclass(frozen=True)
class Published:
    """Per cent by task, "average" among them; `note`: why there are none, or what is not the
    same."""

    figures: dict[str, float]
    note: str = ""


NOTHING = Published({})


def published_for(model: str, image_size: Size) -> PublishedResult | None:
    """The paper's row for a stored model that is fine-tuned at this size, where there is one."""
    if model not in MODELS:
        return None
    label, data = MODELS[model]
    rows = [row for row in RESULTS if (row.model, row.data) == (label, data)]
    return next((row for row in rows if row.image_size == image_size), None)


def published(model: str, suite: Suite) -> Published:
    """What stands beside our figures of a model on the paper's tasks, or some of them."""
    if model not in MODELS:
        return NOTHING
    label, data = MODELS[model]
    whole = {task.name: task for task in average_5().tasks}
    if any(_how(task) != _how(whole[task.name]) for task in suite.tasks):
        return Published({}, "The paper's figures are not shown: steps or batches are others.")
    size = suite.tasks[0].recipe.model.image_size
    row = published_for(model, size)
    if row is None:
        shown = "×".join(map(str, size)) if isinstance(size, tuple) else size
        return Published({}, f"The paper has no figures of {label} fine-tuned at {shown} px.")
    figures = {"imagenet": row.imagenet} if "imagenet" in [t.name for t in suite.tasks] else {}
    if len(suite.tasks) == len(whole) and row.average5 is not None:
        figures["average"] = row.average5
    if not figures:
        return Published({}, "The paper has figures of ImageNet and the average of all five alone.")
    from_scratch = (
        "The paper's figure of ImageNet, and its part in the average, is that of training from "
        "scratch; ours is of fine-tuning on ImageNet once more."
    )
    return Published(figures, from_scratch if data == "i1k" else "")


def _how(task: Task) -> tuple[object, ...]:
    """What the paper says of a task's fine-tuning, and a command can change."""
    recipe = task.recipe
    return recipe.duration, recipe.schedule.warmup, recipe.batch_size, task.rates
