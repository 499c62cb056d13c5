"""`mixer evaluate MODEL --protocol avg5`: fine-tuned on several tasks, and averaged."""

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as, wants_help
from mixerkit.cli.images import model_named
from mixerkit.cli.program import command
from mixerkit.cli.running import RUNS, located, located_init
from mixerkit.cli.text import percent, plural, short, table
from mixerkit.errors import EXIT_DONE, EXIT_FAILED, UserError, exit_code_for_signal, unknown
from mixerkit.spec.mixer import Size

if TYPE_CHECKING:
    from mixerkit.data.sources import Splits
    from mixerkit.spec.recipe import Recipe
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer import Suite, Task

EXAMPLES = """\
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data --dry-run
  mixer evaluate zoo:b16-imagenet21k-google --protocol avg5 --root /data
  mixer evaluate runs/mine@best --protocol avg5 --root /data --tasks pets flowers102
  mixer evaluate runs/mine --protocol avg5 --suite my-folders.yaml
  mixer evaluate runs/mine --protocol avg5 --root /data --steps 20 --batch-size 32    # a rehearsal
"""

SWITCHES = ("--dry-run", "--json")


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
    steps: int = 0
    """Steps of every trial instead of the recipe's, and a fifth of them warm-up: a rehearsal."""
    batch_size: int = 0
    """Images of a step instead of the recipe's 512."""
    folder: Annotated[str, shown_as("FOLDER")] = ""
    """Where the trials are; runs/avg5/MODEL if not given."""
    dry_run: Flag = False
    """Print the trials and what they cost; write nothing."""
    json: Flag = False
    """Print the table as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer evaluate MODEL --protocol avg5` with `words`."""
    if wants_help(words):
        _parsed(words, "")
    given = _parsed(words, model_named(words, SWITCHES, "avg5"))
    suite = prepared(given)
    if given.dry_run:
        return show_plan(suite, opened_data(suite), given.json)
    opened_data(suite)  # what is missing is said before any time is spent
    return work(given, suite, words)


def _parsed(words: list[str], name: str) -> Avg5:
    return parse(Avg5, words, command="evaluate", examples=EXAMPLES, default=Avg5(name))


def prepared(given: Avg5) -> "Suite":
    """The suite with its recipes for the model, its images and what else was asked for."""
    from mixerkit.study.transfer import average_5, read_suite

    suite = read_suite(Path(given.suite)) if given.suite else average_5()
    names = [task.name for task in suite.tasks]
    for name in given.tasks:
        if name not in names:
            raise unknown("task", name, names)
    kept = [task for task in suite.tasks if not given.tasks or task.name in given.tasks]
    average = suite.average if len(kept) == len(names) else f"Avg of {len(kept)}"
    return replace(suite, average=average, tasks=tuple(_prepared(task, given) for task in kept))


def _prepared(task: "Task", given: Avg5) -> "Task":
    from mixerkit.training.initial import suited

    recipe = task.recipe
    init = located_init(replace(recipe.init, source=given.model))
    data = located(replace(recipe.data, root=given.root))
    recipe = suited(replace(recipe, init=init, data=data), given.image_size)
    if given.batch_size:
        recipe = replace(recipe, batch_size=given.batch_size, accumulation=1)
    if given.steps:
        every = f"{given.steps} steps"
        recipe = replace(
            recipe,
            schedule=replace(recipe.schedule, warmup=f"{max(1, given.steps // 5)} steps"),
            save=replace(recipe.save, every=every),
            duration=every,
        )
    return replace(task, recipe=recipe)


def opened_data(suite: "Suite") -> "list[tuple[Recipe, Splits]]":
    """Every task's images, and its recipe for them; one `UserError` that names all that are not
    there."""
    from mixerkit.training.setup import open_data

    found, problems = [], []
    for task in suite.tasks:
        try:
            recipe, splits = open_data(task.recipe)
        except UserError as error:
            problems.append(f"{task.title}: {error}")
            continue
        if splits.test is None:
            problems.append(f"{task.title}: there is no test split in {splits.origin}.")
        found.append((recipe, splits))
    if problems:
        raise UserError("Nothing was started.\n" + "\n".join(problems))
    return found


def show_plan(suite: "Suite", data: "list[tuple[Recipe, Splits]]", as_json: bool) -> int:
    """What would be trained, and how much that is."""
    from mixerkit.model.cost import cost
    from mixerkit.spec.recipe import parse_duration

    rows: list[dict[str, Any]] = []
    for task, (recipe, splits) in zip(suite.tasks, data, strict=True):
        images = len(splits.train) + len(splits.validation or ())
        steps = parse_duration(recipe.duration).steps(images, recipe.batch_size)
        macs = 3 * cost(recipe.model).macs * steps * recipe.batch_size
        rows.append(
            {
                "task": task.name,
                "title": task.title,
                "images": images,
                "test_images": len(splits.test or ()),
                "rates": list(task.rates),
                "trials": len(task.rates) + 1,
                "steps": steps,
                "batch_size": recipe.batch_size,
                "training_macs": macs * (len(task.rates) + 1),
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return EXIT_DONE
    lines = [("task", "images", "test", "trials", "steps each", "batch", "MACs of training")]
    lines += [
        (
            row["title"], f"{row['images']:,}", f"{row['test_images']:,}", str(row["trials"]),
            f"{row['steps']:,}", str(row["batch_size"]), short(row["training_macs"]),
        )
        for row in rows
    ]  # fmt: skip
    total = sum(row["training_macs"] for row in rows)
    trials = sum(row["trials"] for row in rows)
    print(table(lines))
    print(f"\n{plural(trials, 'trial')}, {short(total)} multiply-adds (nothing was written)")
    return EXIT_DONE


def work(given: Avg5, suite: "Suite", words: list[str]) -> int:
    """Take part in both stages, and say what came of it."""
    from mixerkit.cli.progress import Console
    from mixerkit.study.runner import StudyFolder
    from mixerkit.study.transfer import best_rates, choosing, final

    console = Console(sys.stderr if given.json else sys.stdout)
    path = Path(given.folder) if given.folder else RUNS / "avg5" / folder_name(given.model)
    choose = StudyFolder(choosing(suite), path / "choose")
    code = _stage(choose, "comparing rates", console)
    if code is None:
        last = StudyFolder(final(suite, best_rates(suite, choose)), path / "final")
        code = _stage(last, "training on everything", console)
    if code is not None:
        print(f"Go on with:\n  {command('evaluate', *words)}", file=sys.stderr)
        return code
    return tell(given, suite, choose, last)


def folder_name(model: str) -> str:
    """A folder's name that is made of a model's."""
    return re.sub(r"[^A-Za-z0-9.=_@-]+", "-", model).strip("-.") or "model"


def _stage(folder: "StudyFolder", what: str, console: Any) -> int | None:
    """Do what is left of one stage; the exit code if it did not come to its end."""
    from mixerkit.cli.study import take_part

    count = len(folder.configurations)
    work = take_part(folder, f"{what}: {plural(count, 'trial')}", console)
    for name, why in work.given_up.items():
        print(f"given up here: {name}: {why}", file=sys.stderr)
    if work.stopped:
        return exit_code_for_signal(work.stopped)
    return EXIT_FAILED if len(folder.rows()) < count else None


def tell(given: Avg5, suite: "Suite", choose: "StudyFolder", last: "StudyFolder") -> int:
    """The table, beside the paper's figures where the model is one of its own."""
    from mixerkit.study.transfer import table_of

    rows = table_of(suite, choose, last)
    paper = paper_of(given, suite)
    rows = [row | {"published": paper.get(row["task"])} for row in rows]
    failed = [row for row in rows if row.get("error")]
    if given.json:
        print(json.dumps({"model": given.model, "suite": suite.name, "rows": rows}, indent=2))
    else:
        print(f"\n{given.model}\n\n{as_text(rows, bool(paper))}")
    for row in failed:
        print(f"failed: {row['title']}: {row['error']}", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_DONE


def paper_of(given: Avg5, suite: "Suite") -> dict[str, float]:
    """What the paper has for the same: per cent by task, "average" among them."""
    from mixerkit.study.transfer import average_5, published_for

    size = suite.tasks[0].recipe.model.image_size
    row = published_for(given.model, size) if not given.suite else None
    if row is None:
        return {}
    whole = len(suite.tasks) == len(average_5().tasks)
    average = {"average": row.average5} if whole and row.average5 is not None else {}
    return {"imagenet": row.imagenet} | average


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
