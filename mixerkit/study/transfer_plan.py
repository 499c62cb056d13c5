"""What the transfer protocol would train and what that costs; or, before any time is spent, all
that keeps it from coming to its end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from mixerkit.data.sources import Splits
from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.spec.recipe import Recipe
from mixerkit.study.transfer import choosing, compared, tested
from mixerkit.study.transfer_broken import Broken, as_in_the_end, looked_through
from mixerkit.study.transfer_images import Known, known_by
from mixerkit.study.transfer_suite import Suite, Task, filled
from mixerkit.training.setup import check_classes, count_steps, open_data, training_loader


@dataclass(frozen=True)
class Planned:
    """A task that can be trained. `task`: with the batch that its images fill; `batch_asked`: of
    its recipe; `images`: for training, those among them that are held out while rates are
    compared; `steps`: of each trial; `macs`: multiply-adds of all its trials; `saves`: checkpoints
    that each writes; `looked`: images that were opened; `known`: by what they are known again, if
    that was asked for; `test_name`: of the test split, as runs write it down."""

    task: Task
    batch_asked: int
    images: int
    held_out: int
    test_images: int
    steps: int
    macs: int
    saves: int = 0
    looked: tuple[Broken, ...] = ()
    known: Known = field(default_factory=dict)
    test_name: str = ""

    @property
    def trials(self) -> int:
        """One for each rate, and one that is tested."""
        return len(self.task.rates) + 1

    @property
    def note(self) -> str:
        """What was chosen for the images; empty where nothing was."""
        batch = self.task.recipe.batch_size
        if batch == self.batch_asked:
            return ""
        return (
            f"{self.task.title}: batches of {batch} images, because the "
            f"{self.images - self.held_out} that train while rates are compared do not fill "
            f"{self.batch_asked}; batch_size in the suite's file, or --batch-size, sets another."
        )

    @property
    def notes(self) -> list[str]:
        """All that is to be said before the start."""
        looked = [f"{self.task.title}: {note}" for one in self.looked for note in one.notes()]
        return [*filter(None, [self.note]), *looked]

    @property
    def measured(self) -> int:
        """Images that all trials together are measured on."""
        return len(self.task.rates) * self.held_out + self.test_images

    def as_row(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "task": self.task.name,
            "title": self.task.title,
            "images": self.images,
            "held_out": self.held_out,
            "test_images": self.test_images,
            "rates": list(self.task.rates),
            "trials": self.trials,
            "steps": self.steps,
            "batch_size": self.task.recipe.batch_size,
            "training_macs": self.macs,
            "checkpoints": self.saves * self.trials,
            "unreadable": {one.kind: len(one.found) for one in self.looked},
            "opened": {one.kind: one.opened for one in self.looked},
        }


def planned(
    suite: Suite,
    skip_broken: bool = False,
    known_again: bool = False,
    watch: Callable[[str], None] = lambda line: None,
) -> list[Planned]:
    """Every task with its images; one `UserError` that says all that keeps any from training.
    Images are opened for it, of a large set a sample: `watch` is told of which. `skip_broken`: no
    number of broken ones keeps a task from training, up to a half. `known_again`: note by what the
    images are known again."""
    choosing(suite).configurations()  # refuses equal names
    found, problems = [], []
    for task in suite.tasks:
        try:
            recipe, splits = open_data(task.recipe)
        except UserError as error:
            # as a suite's file calls it
            problems.append(f"{task.title}: {error}".replace("data.holdout", "held_out"))
            continue
        fitting = filled(task, len(splits.train))
        looked = looked_through(recipe, splits, _beginning(task.title, watch))
        judged = as_in_the_end(looked)
        share = recipe.data.max_unreadable
        said = dict.fromkeys(_problems(fitting, recipe.model.num_classes, splits))
        said |= dict.fromkeys(filter(None, (one.problem(share, skip_broken) for one in judged)))
        problems += [f"{task.title}: {problem}" for problem in said]
        if not said:
            known = known_by(splits, recipe.data) if known_again else {}
            found.append(_planned(task, fitting, recipe, splits, looked, known))
    if problems:
        raise UserError("Nothing was started.\n" + "\n".join(problems))
    return found


def _beginning(title: str, watch: Callable[[str], None]) -> Callable[[str], None]:
    """`watch`, with every line after a task's title."""
    return lambda line: watch(f"{title}: {line}")


def _planned(
    asked: Task,
    task: Task,
    opened: Recipe,
    splits: Splits,
    looked: tuple[Broken, ...],
    known: Known,
) -> Planned:
    images, batch = _all_images(splits), task.recipe.batch_size
    counted = count_steps(tested(task), images)
    steps = counted.total
    # backward takes twice the forward pass
    macs = 3 * cost(opened.model).macs * steps * batch * (len(task.rates) + 1)
    held_out, test = len(splits.validation or ()), len(splits.test or ())
    return Planned(
        task,
        asked.recipe.batch_size,
        images,
        held_out,
        test,
        steps,
        macs,
        saves=1 + -(-steps // counted.save_every),  # what it begins from is saved, too
        looked=looked,
        known=known,
        test_name=splits.test.name if splits.test else "",
    )


def _all_images(splits: Splits) -> int:
    return len(splits.train) + len(splits.validation or ())


def _problems(task: Task, classes: int, splits: Splits) -> Iterator[str]:
    """What the trainer would refuse in either stage, and what the protocol needs besides."""
    if splits.test is None:
        yield (
            f"there is no test split in {splits.origin}: put images to test on beside those for "
            f"training."
        )
    if splits.validation is None:
        yield f"no image of {splits.origin} is held out, and rates are compared on such: give some."
    choose = compared(task)
    model = replace(choose.model, num_classes=classes)
    try:
        # Training on everything has more images, so that its batch is full too.
        check_classes(training_loader(replace(choose, model=model), splits))
    except UserError as error:
        yield str(error)
    for recipe, images in ((choose, len(splits.train)), (tested(task), _all_images(splits))):
        try:
            count_steps(recipe, images)
        except UserError as error:
            yield str(error)
