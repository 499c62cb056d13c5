"""What is done to a run folder before it is read or written in: making, clearing up, checking."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoints import RECIPE, check_format
from mixerkit.checkpoint.files import UNFINISHED, remove_unfinished, sync, write_atomic
from mixerkit.checkpoint.lock import Taken, holder
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    OtherFormat,
    read_manifest,
    verify_folder,
    without_advice,
)
from mixerkit.checkpoint.mending import (
    copies,
    is_mendable,
    mend,
    run_manifest,
    with_advice,
)
from mixerkit.checkpoint.records import METRICS, QUARANTINE, TIMING, read_metrics
from mixerkit.checkpoint.rows import cut_torn_end
from mixerkit.checkpoint.step_folders import folder_of, named_steps, steps_in
from mixerkit.errors import Unreadable, UserError
from mixerkit.results import describe_machine, describe_versions
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml, write_yaml


def is_run(path: Path) -> bool:
    """Whether `path` looks like a run folder."""
    return (path / RECIPE).is_file() and (path / MANIFEST).is_file()


def has_run(path: Path) -> bool:
    """Whether a run is in `path`, or what is left of one."""
    locked = (path / "lock").is_file() and (path / MANIFEST).is_file()
    return is_run(path) or is_mendable(path) or locked


def is_finished(path: Path) -> bool:
    """Whether the run in `path` has come to its end and kept its model."""
    return (path / "model" / MANIFEST).exists()


def state_of(path: Path) -> str:
    """ "running" while a process writes in it, else "finished" (has a model) or "stopped"."""
    if holder(path):
        return "running"
    return "finished" if is_finished(path) else "stopped"


def reached_step(path: Path) -> int:
    """The last step that the run in `path` has a row or a checkpoint of; 0 before the first."""
    rows = [row["step"] for row in read_metrics(path / METRICS)]
    return max([*rows, *steps_in(path / "checkpoints")], default=0)


# -- making -------------------------------------------------------------------------------


def check_free(path: Path) -> None:
    """Refuse a folder that holds a run or anything else but an unfinished start of ours."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder: give another --out.")
    if is_run(path):
        raise Taken(_occupied(path))
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    ours = {"lock", RECIPE} if "lock" in names else set()
    others = sorted(n for n in names - ours if not n.startswith(UNFINISHED))
    if others:
        raise UserError(
            f"{path} is not empty and holds no run ({', '.join(others[:3])}, …): give another "
            f"--out."
        )


def _occupied(path: Path) -> str:
    start = "To start another: "
    try:
        check_start(path)
        recipe = from_dict(Recipe, read_yaml(path / RECIPE))
        state, writer = state_of(path), holder(path)
        what = f"recipe '{recipe.name}', step {reached_step(path)}, {state}"
    except (UserError, OSError) as error:
        what = str(error)
    else:
        what = f"{what}, written by {writer}" if writer else what
        if state == "stopped":
            resume = f"`mixer train --resume {shlex.quote(str(path))}`"
            start = f"Go on with it: {resume}; or start another: "
    return f"{path} already holds a run ({what}). {start}give another --out."


def start(path: Path, recipe: Recipe) -> None:
    """Make the locked, empty folder `path` a run."""
    check_free(path)  # another process may have been faster
    remove_unfinished(path)
    text = write_yaml(recipe).encode()
    write_atomic(path / RECIPE, text)
    here = {"machine": describe_machine(), "versions": describe_versions()}
    manifest = run_manifest(text, datetime.now(UTC), here)
    write_atomic(path / MANIFEST, manifest)  # from here on it is one


# -- going on -----------------------------------------------------------------------------


def clear(path: Path) -> None:
    """Take away what a kill left, put on the disk the names that it left unsynced, and mend.

    Raises `OtherFormat`, and changes nothing, for a run that another version is to go on with.
    """
    _check_formats(path)
    for folder in (path, path / "checkpoints", path / "figures"):
        if folder.is_dir():
            remove_unfinished(folder)
            sync(folder)
    newest = next(copies(path), None)
    cut_torn_end(path / METRICS, newest.metrics_bytes if newest else 0)
    for name in (TIMING, QUARANTINE):
        cut_torn_end(path / name)
    mend(path)
    check_start(path)


def _check_formats(path: Path) -> None:
    """Raise `OtherFormat` where another version wrote the run's manifest, or the newest checkpoint
    whose manifest can be read."""
    _sound_manifest(path)
    checkpoints = path / "checkpoints"
    for step in reversed(named_steps(checkpoints)):
        folder = folder_of(checkpoints, step)
        manifest = _sound_manifest(folder)
        if manifest is not None:
            check_format(folder, manifest)
            return


def _sound_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where it is damaged, or not read now."""
    try:
        return read_manifest(folder)
    except OtherFormat:
        raise
    except UserError:
        return None


def check_run(path: Path) -> None:
    """Refuse what is no run, or has lost what no checkpoint has a copy of."""
    if is_run(path) or is_mendable(path):
        return
    here = [name for name in (RECIPE, MANIFEST) if (path / name).is_file()]
    if not here or not (path / "lock").exists():
        raise UserError(
            f"{path} is not a run folder: expected {RECIPE} and {MANIFEST} in it. "
            f"`mixer runs` lists the runs of a folder."
        )
    lost = MANIFEST if RECIPE in here else RECIPE
    raise UserError(f"{path / lost} is missing. {_start_again(path)}")


def _start_again(path: Path) -> str:
    """What to do where no checkpoint has a copy of the recipe."""
    recipe = shlex.quote(str(path / RECIPE)) if (path / RECIPE).is_file() else "RECIPE"
    return (
        f"Nothing can be put back, for no checkpoint was saved: start the run again, `mixer train "
        f"{recipe} --out FOLDER`."
    )


def check_start(path: Path) -> None:
    """The recipe must be the one that the run was started with."""
    try:
        verify_folder(path, kind="run", must_list=(RECIPE,))
    except (Unreadable, OtherFormat):
        raise
    except UserError as error:
        if not is_mendable(path):
            raise UserError(f"{without_advice(error)} {_start_again(path)}") from error
        raise with_advice(path, RECIPE, error) from error
