"""`mixer evaluate MODEL --protocol avg5`: fine-tuned on several tasks, and averaged."""

import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.avg5_result import about, tell
from mixerkit.cli.avg5_text import as_json, next_text, plan_text
from mixerkit.cli.images import model_named
from mixerkit.cli.program import command
from mixerkit.cli.progress import Console
from mixerkit.cli.protocols import beginning_with
from mixerkit.cli.running import RUNS, located, located_init
from mixerkit.cli.text import plural
from mixerkit.errors import EXIT_DONE, EXIT_FAILED, UserError, exit_code_for_signal, unknown
from mixerkit.spec.choices import check_whole, separated
from mixerkit.spec.mixer import Size

if TYPE_CHECKING:
    from mixerkit.cli.avg5_progress import Overall
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer_plan import Planned
    from mixerkit.study.transfer_suite import Suite, Task

COMMAND = "evaluate --protocol avg5"
EXAMPLES = """\
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data --dry-run
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data
  mixer evaluate runs/mine@best --protocol avg5 --root /data --tasks pets flowers102
  mixer evaluate runs/mine --protocol avg5 --suite my-folders.yaml
  mixer evaluate runs/mine --protocol avg5 --root /data --steps 20 --batch-size 32    # a rehearsal
"""

SWITCHES = ("--dry-run", "--again", "--skip-broken", "--json")


@dataclass(frozen=True)
class Avg5:
    """Fine-tune MODEL on every task by the paper's recipe, with every learning rate of its grid on
    held-out images, then with the best one on everything; test, and average.

    Each trial is a run folder: the same command in another terminal, or on another machine that
    sees FOLDER, takes part; after an interruption it goes on."""

    model: Annotated[Word, shown_as("MODEL")] = ""
    """Run folder, RUN@best, model folder, file of weights, hf://ORG/NAME or zoo:NAME."""
    protocol: Literal["avg5"] = "avg5"
    """This protocol."""
    root: Annotated[str, shown_as("DATA")] = ""
    """Folder in which the named sets are looked for first."""
    suite: Annotated[str, shown_as("FILE")] = ""
    """Your own tasks in a YAML file (docs/evaluation.md), instead of the paper's five."""
    tasks: tuple[str, ...] = ()
    """Some of the tasks alone; their trials are a part of the whole, in the same folder."""
    image_size: Annotated[Size | None, shown_as("INT | INT INT")] = None
    """Pixels to fine-tune at, one side or height and width; the model's own if not given."""
    steps: Annotated[int | None, shown_as("INT")] = None
    """Steps of every trial instead of the recipe's, and a fifth of them warm-up: a rehearsal."""
    batch_size: Annotated[int | None, shown_as("INT")] = None
    """Images of a step instead of the recipe's 512."""
    folder: Annotated[str, shown_as("FOLDER")] = ""
    """Where the trials are; runs/avg5/MODEL if not given, and a folder beside it for a rehearsal,
    another image size or batch, or your own tasks."""
    dry_run: Flag = False
    """Print the trials and what they cost; write nothing."""
    again: Flag = False
    """Try again trials whose figures became NaN."""
    skip_broken: Flag = False
    """Leave out images that cannot be used, up to a half, and say which; otherwise any for the test
    is an error, and so are more than 1 % of those for training."""
    json: Flag = False
    """Print the table as JSON, and everything else on stderr."""

    def __post_init__(self) -> None:
        for name, value in (("--steps", self.steps), ("--batch-size", self.batch_size)):
            if value is not None:
                check_whole(name, value, least=1)
        if self.dry_run and self.again:
            raise UserError("--dry-run and --again exclude one another: leave one out.")


def main(words: list[str]) -> int:
    """Run `mixer evaluate MODEL --protocol avg5` with `words`."""
    if wants_help(words):
        _parsed(words, "")
    given = _parsed(words, model_named(words, SWITCHES, "avg5"))
    from mixerkit.cli.avg5_progress import Opening
    from mixerkit.study.transfer_plan import planned

    suite = prepared(given)
    with Opening(Console(_stream(given))) as watch:
        # what cannot train is said before any time is spent
        plans = planned(suite, given.skip_broken, not given.dry_run, watch)
    suite = replace(suite, tasks=tuple(plan.task for plan in plans))
    if given.dry_run:
        return show_plan(given, suite, plans)
    return work(given, suite, plans, words)


def _parsed(words: list[str], name: str) -> Avg5:
    return parse(Avg5, words, command=COMMAND, examples=EXAMPLES, default=Avg5(name))


def prepared(given: Avg5) -> "Suite":
    """The suite with its recipes for the model, its images and what else was asked for."""
    from mixerkit.study.transfer_suite import average_5, read_suite

    suite = read_suite(Path(given.suite)) if given.suite else average_5()
    names = [task.name for task in suite.tasks]
    wanted = separated(given.tasks, names)
    for name in wanted:
        if name not in names:
            raise unknown("task", name, names)
    kept = [task for task in suite.tasks if not wanted or task.name in wanted]
    average = suite.average if len(kept) == len(names) else f"Avg of {len(kept)}"
    return replace(suite, average=average, tasks=tuple(_prepared(task, given) for task in kept))


def _prepared(task: "Task", given: Avg5) -> "Task":
    from mixerkit.study.transfer_suite import batched, rehearsed
    from mixerkit.training.initial import suited

    recipe = task.recipe
    # the paper fine-tunes the dense form at whole multiples (docs/surgery.md)
    init = located_init(replace(recipe.init, source=given.model, enlargement="dense"))
    data = located(replace(recipe.data, root=given.root))
    with beginning_with(image_size="--image-size"):
        recipe = suited(replace(recipe, init=init, data=data), given.image_size)
    if given.steps:
        recipe = rehearsed(recipe, given.steps)
    if given.batch_size:
        return replace(task, recipe=batched(recipe, given.batch_size), may_shrink=False)
    return replace(task, recipe=recipe)


def show_plan(given: Avg5, suite: "Suite", plans: "list[Planned]") -> int:
    """What would be trained, how much that is, and how long it would take here."""
    from mixerkit.study.transfer_time import expected

    found = expected(plans)
    if given.json:
        seconds = {"training_seconds": found.training, "measuring_seconds": found.measuring}
        notes = [note for plan in plans for note in plan.notes]
        said = about(given, suite, folder_of(given, suite), notes)
        print(as_json(said | seconds, [plan.as_row() for plan in plans]))
    else:
        print(plan_text(plans, found))
    return EXIT_DONE


def work(given: Avg5, suite: "Suite", plans: "list[Planned]", words: list[str]) -> int:
    """Take part in both stages, and say what came of it."""
    from mixerkit.checkpoint.load import load
    from mixerkit.cli.avg5_progress import Overall
    from mixerkit.evaluation.feature_cache import checksum_of
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer import CHOOSE, FINAL, best_rates, choosing, final
    from mixerkit.study.transfer_images import check_images

    console = Console(_stream(given))
    overall = Overall(console, plans)
    suite = replace(suite, weights=checksum_of(load(given.model)))
    for note in (note for plan in plans for note in plan.notes):
        console.say(note)
    path = folder_of(given, suite)
    choose = StudyFolder(choosing(suite), path / CHOOSE)
    choose.begin()  # other settings are told as such, and not by the images that they lead to
    check_images(
        path,
        {plan.task.name: plan.known for plan in plans},
        {plan.task.name: plan.task.title for plan in plans},
        lambda: {levels["task"] for levels in choose.tried()},
    )
    code = _stage(choose, "comparing rates", given.again, overall)
    if code is None:
        last = StudyFolder(final(suite, best_rates(suite, choose)), path / FINAL)
        last.begin()
        code = _stage(last, "training on everything", given.again, overall)
    if code is not None:
        same = [word for word in words if word != "--again"]
        print(f"Go on with:\n  {command('evaluate', *same)}", file=sys.stderr)
        return code
    code = tell(given, suite, plans, choose, last)
    if not given.json:
        print(next_text(path, last))
    return code


def _stream(given: Avg5) -> TextIO:
    return sys.stderr if given.json else sys.stdout


def folder_of(given: Avg5, suite: "Suite") -> Path:
    """Where the trials are."""
    return Path(given.folder) if given.folder else default_folder(given, suite)


def default_folder(given: Avg5, suite: "Suite") -> Path:
    """runs/avg5/MODEL, and beside it one for each way to change the protocol, such as a rehearsal.
    Some of the tasks are a part of the whole."""
    sides = given.image_size if isinstance(given.image_size, tuple) else (given.image_size,)
    changed = {
        "suite": folder_name(suite.name) if given.suite else "",
        "image_size": "x".join(map(str, sides)) if given.image_size else "",
        "steps": given.steps,
        "batch_size": given.batch_size,
    }
    said = [f"{name}={value}" for name, value in changed.items() if value]
    return RUNS / "avg5" / ",".join([folder_name(given.model), *said])


def folder_name(model: str) -> str:
    """A folder's name that is made of a model's."""
    return re.sub(r"[^A-Za-z0-9.=_@-]+", "-", model).strip("-.") or "model"


def _stage(folder: "StudyFolder", what: str, again: bool, overall: "Overall") -> int | None:
    """Do what is left of one stage; the exit code if it did not come to its end."""
    from mixerkit.study.runner import Work
    from mixerkit.training.interrupt import second_ends_at_once

    console = overall.console
    if again and (failed := folder.forget_failures()):
        console.say(f"{plural(failed, 'failed trial')} to try again")
    count = len(folder.configurations)
    console.say(f"{what}: {plural(count, 'trial')}, {len(folder.rows())} done, in {folder.path}")
    work = Work(folder, console.say, overall)
    overall.follow(work)
    with second_ends_at_once():
        work.do()
    for why, times in Counter(work.given_up.values()).items():
        print(f"{plural(times, 'trial')} could not be trained here: {why}", file=sys.stderr)
    if work.stopped:
        return exit_code_for_signal(work.stopped)
    return EXIT_FAILED if len(folder.rows()) < count else None
