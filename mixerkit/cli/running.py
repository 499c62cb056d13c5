"""A run as the commands start it: by which recipe, in which folder, and how to go on with it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixerkit import launch
from mixerkit.cli.program import command
from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.recipe import Data, Init, Recipe
from mixerkit.spec.recipes import RECIPES, recipe

if TYPE_CHECKING:
    from mixerkit.training.result import TrainingResult

RUNS = Path("runs")

Outcome = tuple["TrainingResult", Path | None]
"""What a run came to, and its report."""


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`, in a YAML file, or of a run whose recipe is as it was saved."""
    path = Path(name)
    if not path.is_dir():
        return recipe(name)
    from mixerkit.checkpoint.opening import has_run
    from mixerkit.checkpoint.run import RunFolder

    if not has_run(path):
        return recipe(name)
    try:
        return RunFolder.open(path).recipe()
    except UserError as error:
        file = path / "recipe.yaml"
        if not file.is_file() or str(file) not in str(error):
            raise
        raise UserError(
            f"{error} {file} can be named itself, to train by it as it is now."
        ) from None


def run_where_free(settings: Recipe, source: str, console: Any) -> Outcome:
    """Train into runs/NAME, or the first of runs/NAME-2, … that no other run takes meanwhile."""
    from mixerkit.checkpoint.lock import Taken

    while True:
        folder = _agreed_folder(settings, source)
        try:
            return run(settings, folder, resume=False, console=console)
        except Taken:
            print(f"{folder} was taken by another run in the same moment.", file=console)


def _agreed_folder(settings: Recipe, source: str) -> Path:
    """`free_folder`, and of several processes that of the first."""
    if launch.processes() == 1:
        return free_folder(settings, source)
    from mixerkit.training.world import World

    return World.here().first_says(lambda: free_folder(settings, source))


def free_folder(settings: Recipe, source: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, … that does not exist."""
    name = settings.name if settings.name != "custom" or not source else Path(source).stem
    folder, number = RUNS / name, 2
    while folder.exists():
        folder, number = RUNS / f"{name}-{number}", number + 1
    return folder


def located(data: Data) -> Data:
    """`data` with whole paths for its folders: a recipe must mean the same from every folder."""
    from mixerkit.data.sources import SOURCES

    is_folder = data.source not in ("", *SOURCES) and Path(data.source).is_dir()
    return replace(
        data,
        source=_whole(data.source) if is_folder else data.source,
        root=_whole(data.root) if data.root else "",
    )


def located_init(init: Init) -> Init:
    """`init` with whole paths for weights that are here, such as of a run (RUN@best too), and for a
    recipe's file."""

    places = (init.source, init.source.rpartition("@")[0])
    source = _whole(init.source) if any(map(os.path.lexists, places)) else init.source
    is_file = init.recipe not in RECIPES and os.path.lexists(init.recipe)
    return replace(init, source=source, recipe=_whole(init.recipe) if is_file else init.recipe)


def _whole(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (resolve() would follow links)


def run(settings: Recipe, folder: Path, *, resume: bool, console: Any) -> Outcome:
    """Train into `folder` while `console` watches, then write the report."""
    from mixerkit.cli.progress import Console
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw
    from mixerkit.training.interrupt import second_ends_at_once
    from mixerkit.training.loop import train

    watch = Console(console)
    watch.say(f"run:  {folder}")
    if not can_draw():
        watch.say(f"There will be no report: {HOW_TO_DRAW}")
    if not resume:
        settings = replace(settings, data=located(settings.data), init=located_init(settings.init))
    with second_ends_at_once(), _saying_how_to_go_on(folder, settings, resume):
        result = train(settings, folder, resume=resume, watch=watch)
    if result.interrupted:
        watch.say(f"Stopped at step {result.steps:,}, saved. {_go_on(folder, settings)}")
        return result, None
    watch.say("drawing the report")
    return result, write_report(folder) if launch.rank() == 0 else None


@contextmanager
def _saying_how_to_go_on(folder: Path, settings: Recipe, resume: bool) -> Iterator[None]:
    """Errors that end the run in `folder` after it began say how to go on. Not those of a loss or
    weights that are not finite, which would come again, nor what refuses a resume, but that the
    images are gone: they may be elsewhere."""
    from mixerkit.checkpoint.lock import Taken
    from mixerkit.checkpoint.opening import is_run

    before = is_run(folder) and not resume

    def is_ours() -> bool:
        return is_run(folder) and not before

    try:
        yield
    except Taken:
        raise
    except UserError as error:
        refused = resume and not error.resumable and not _are_gone(settings)
        if refused or not is_ours():
            raise
        raise UserError(f"{error}\n{_go_on(folder, settings)}") from error
    except RunFailed as error:
        if type(error) is not RunFailed or not is_ours():
            raise
        raise RunFailed(f"{error}\n{_go_on(folder, settings)}") from error
    except KeyboardInterrupt:
        if is_ours():
            print(f"Stopped at once. {_go_on(folder, settings)}", file=sys.stderr)
        raise


def _go_on(folder: Path, settings: Recipe) -> str:
    """The command to go on with; where the images are gone, with a place for where they are now."""
    moved = ["--data.source", "FOLDER"] if _are_gone(settings) else []
    return f"Go on with:\n  {command('train', '--resume', folder, *moved)}"


def _are_gone(settings: Recipe) -> bool:
    """Whether the folder of the images is not there."""
    source = Path(settings.data.source)
    return source.is_absolute() and not source.exists()


def write_report(folder: Path) -> Path | None:
    """Write the run's report.html; where the plotting package is missing, say so and go on."""
    from mixerkit.checkpoint.run import RunFolder
    from mixerkit.insight.report import write_report as write

    try:
        with RunFolder.open(folder) as opened:
            return write(opened)
    except UserError as error:
        print(f"mixer: no report: {error}", file=sys.stderr)
        return None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        again = command("runs", "report", folder)
        raise RunFailed(
            f"The run is finished and its model kept, but the report could not be written "
            f"({where}{error.strerror or error}). Free at least 10 MiB on the disk of {folder}, "
            f"then write it:\n  {again}"
        ) from error
