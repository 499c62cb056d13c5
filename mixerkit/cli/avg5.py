"""`mixer evaluate MODEL --protocol avg5`: fine-tuned on several tasks, and averaged."""

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.images import model_named
from mixerkit.cli.program import command
from mixerkit.cli.running import RUNS, located, located_init
from mixerkit.cli.text import percent, plural, short, table
from mixerkit.errors import EXIT_DONE, EXIT_FAILED, UserError, exit_code_for_signal, unknown
from mixerkit.spec.choices import check_whole
from mixerkit.spec.mixer import Size

if TYPE_CHECKING:
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer_paper import Published
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

SWITCHES = ("--dry-run", "--again", "--json")


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
    """Some of the tasks alone."""
    image_size: Size | None = None
    """Pixels to fine-tune at, one side or height and width; the model's own if not given."""
    steps: Annotated[int | None, shown_as("INT")] = None
    """Steps of every trial instead of the recipe's, and a fifth of them warm-up: a rehearsal."""
    batch_size: Annotated[int | None, shown_as("INT")] = None
    """Images of a step instead of the recipe's 512."""
    folder: Annotated[str, shown_as("FOLDER")] = ""
    """Where the trials are; runs/avg5/MODEL if not given."""
    dry_run: Flag = False
    """Print the trials and what they cost; write nothing."""
    again: Flag = False
    """Try again trials whose figures became NaN."""
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
    from mixerkit.study.transfer_plan import planned

    suite = prepared(given)
    plans = planned(suite)  # what cannot train is said before any time is spent
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
    for name in given.tasks:
        if name not in names:
            raise unknown("task", name, names)
    kept = [task for task in suite.tasks if not given.tasks or task.name in given.tasks]
    average = suite.average if len(kept) == len(names) else f"Avg of {len(kept)}"
    return replace(suite, average=average, tasks=tuple(_prepared(task, given) for task in kept))


def _prepared(task: "Task", given: Avg5) -> "Task":
    from mixerkit.study.transfer_suite import batched, rehearsed
    from mixerkit.training.initial import suited

    recipe = task.recipe
    # the paper fine-tunes the dense form at whole multiples (docs/surgery.md)
    init = located_init(replace(recipe.init, source=given.model, enlargement="dense"))
    data = located(replace(recipe.data, root=given.root))
    recipe = suited(replace(recipe, init=init, data=data), given.image_size)
    if given.steps:
        recipe = rehearsed(recipe, given.steps)
    if given.batch_size:
        return replace(task, recipe=batched(recipe, given.batch_size), may_shrink=False)
    return replace(task, recipe=recipe)


def show_plan(given: Avg5, suite: "Suite", plans: "list[Planned]") -> int:
    """What would be trained, and how much that is."""
    notes = [plan.note for plan in plans if plan.note]
    if given.json:
        print(as_json(given, suite, notes, [plan.as_row() for plan in plans]))
        return EXIT_DONE
    lines = [("task", "images", "test", "trials", "steps each", "batch", "MACs of training")]
    lines += [
        (
            plan.task.title, f"{plan.images:,}", f"{plan.test_images:,}", str(plan.trials),
            f"{plan.steps:,}", str(plan.task.recipe.batch_size), short(plan.macs),
        )
        for plan in plans
    ]  # fmt: skip
    trials, macs = sum(plan.trials for plan in plans), sum(plan.macs for plan in plans)
    print("\n".join([table(lines), *notes]))
    print(f"\n{plural(trials, 'trial')}, {short(macs)} multiply-adds (nothing was written)")
    return EXIT_DONE


def as_json(given: Avg5, suite: "Suite", notes: list[str], rows: list[dict[str, Any]]) -> str:
    """What a plan and a result both print for `--json`."""
    about = {"model": given.model, "suite": suite.name, "notes": notes}
    return json.dumps(about | {"rows": rows}, indent=2, ensure_ascii=False)


def work(given: Avg5, suite: "Suite", plans: "list[Planned]", words: list[str]) -> int:
    """Take part in both stages, and say what came of it."""
    from mixerkit.checkpoint.load import load
    from mixerkit.cli.progress import Console
    from mixerkit.evaluation.feature_cache import checksum_of
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer import best_rates, choosing, final

    console = Console(sys.stderr if given.json else sys.stdout)
    suite = replace(suite, weights=checksum_of(load(given.model)))
    notes = [plan.note for plan in plans if plan.note]
    for note in notes:
        console.say(note)
    path = Path(given.folder) if given.folder else RUNS / "avg5" / folder_name(given.model)
    choose = StudyFolder(choosing(suite), path / "choose")
    code = _stage(choose, "comparing rates", given.again, console)
    if code is None:
        last = StudyFolder(final(suite, best_rates(suite, choose)), path / "final")
        code = _stage(last, "training on everything", given.again, console)
    if code is not None:
        same = [word for word in words if word != "--again"]
        print(f"Go on with:\n  {command('evaluate', *same)}", file=sys.stderr)
        return code
    return tell(given, suite, notes, choose, last)


def folder_name(model: str) -> str:
    """A folder's name that is made of a model's."""
    return re.sub(r"[^A-Za-z0-9.=_@-]+", "-", model).strip("-.") or "model"


def _stage(folder: "StudyFolder", what: str, again: bool, console: Any) -> int | None:
    """Do what is left of one stage; the exit code if it did not come to its end."""
    from mixerkit.cli.study import take_part

    folder.begin()
    if again and (failed := folder.forget_failures()):
        console.say(f"{plural(failed, 'failed trial')} to try again")
    count = len(folder.configurations)
    work = take_part(folder, f"{what}: {plural(count, 'trial')}", console)
    for why, times in Counter(work.given_up.values()).items():
        print(f"{plural(times, 'trial')} could not be trained here: {why}", file=sys.stderr)
    if work.stopped:
        return exit_code_for_signal(work.stopped)
    return EXIT_FAILED if len(folder.rows()) < count else None


def tell(
    given: Avg5, suite: "Suite", notes: list[str], choose: "StudyFolder", last: "StudyFolder"
) -> int:
    """The table, beside the paper's figures where the model is one of its own."""
    from mixerkit.study.transfer import table_of

    paper = paper_of(given, suite)
    rows = [
        row | {"published": paper.figures.get(row["task"])} for row in table_of(suite, choose, last)
    ]
    if given.json:
        print(as_json(given, suite, [*notes, *filter(None, [paper.note])], rows))
    else:
        print(f"\n{given.model}\n\n{as_text(rows, bool(paper.figures))}")
        if paper.note:
            print(f"\n{paper.note}")
    failed = [row for row in rows if row.get("error")]
    left_out = [row for _, row in choose.rows() if "error" in row]
    for row in left_out:
        print(f"left out: {row['configuration']}: {row['error']}", file=sys.stderr)
    for row in failed:
        print(f"failed: {row['title']}: {row['error']}", file=sys.stderr)
    if failed or left_out:
        print("--again tries again what became NaN.", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_DONE


def paper_of(given: Avg5, suite: "Suite") -> "Published":
    """What the paper has for the same; nothing for tasks of your own."""
    from mixerkit.study.transfer_paper import NOTHING, published

    return NOTHING if given.suite else published(given.model, suite)


def as_text(rows: list[dict[str, Any]], paper: bool) -> str:
    """The table, with what the paper has beside ours, and the difference in points."""
    lines = [("task", "rate", "held out", "test", *(("paper", "difference") if paper else ()))]
    for row in rows:
        test, published = row["test_accuracy"], row["published"]
        beside = ("", "")
        if published is not None and test is not None:
            beside = (f"{published:.2f} %", f"{100 * test - published:+.2f}")
        lines.append(
            (
                row["title"],
                f"{row['rate']:g}" if row["rate"] else "",
                percent(row["held_out_accuracy"]),
                percent(test) if test is not None else "failed",
                *(beside if paper else ()),
            )
        )
    return table(lines)
