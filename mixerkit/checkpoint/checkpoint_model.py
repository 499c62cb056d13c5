"""A checkpoint as a model: the weights that its run would keep, and what goes with them.

`RUN@newest`, `RUN@best` and `RUN@STEP` name one wherever a model is named; so does its folder.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoints import (
    RECIPE,
    STATE,
    TENSORS,
    Checkpoints,
    NoneUsable,
    best_of,
    check_state,
    held_out_accuracy,
    verify_checkpoint,
)
from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.manifest import OtherFormat
from mixerkit.checkpoint.mending import recipe_digest
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.step_folders import step_of
from mixerkit.checkpoint.stored import Stored
from mixerkit.checkpoint.tensors import shards_of
from mixerkit.errors import UserError, warn
from mixerkit.spec.preprocess import preprocess_for
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml

NEWEST, BEST = "newest", "best"


def split_name(source: str | Path) -> tuple[Path, str] | None:
    """(run, which) of "RUN@which", where RUN is a folder; None of any other text."""
    run, _, which = str(source).rpartition("@")
    try:
        path = Path(run).expanduser()
        return (path, which) if run and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown ~user
        return None


def choose(run: Path, which: str) -> Stored:
    """The checkpoint `which` of the run in `run`: "newest", "best" or a step.

    The newest and the best are those of the sound ones; each that is damaged is named on stderr.
    """
    checkpoints = Checkpoints(run / "checkpoints", recipe_digest(run))
    while True:
        try:
            return _chosen(run, checkpoints, which)
        except Pruned:
            continue


class Pruned(Exception):
    """The run's writer took a checkpoint away that was just to be read."""


def _chosen(run: Path, checkpoints: Checkpoints, which: str) -> Stored:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{run} holds no checkpoint yet, so there is no {run}@{which}.")
    if which.isascii() and which.isdecimal():
        if int(which) not in steps:
            raise UserError(f"{run} has no checkpoint of step {which}: {_known(run, steps)}.")
        return _verified(checkpoints, int(which))
    if which not in (NEWEST, BEST):
        raise UserError(f"No checkpoint '{which}' in {run}: {_known(run, steps)}.")
    sound = _sound(checkpoints, steps, only_newest=which == NEWEST)
    if which == NEWEST:
        return sound[max(sound)]
    best = best_of({step: _accuracy(stored) for step, stored in sound.items()})
    if best is None:
        raise UserError(
            f"No checkpoint in {run} was measured on held-out images, so none is known to be the "
            f"best: {_known(run, steps)}."
        )
    return sound[best]


def _known(run: Path, steps: list[int]) -> str:
    return f"say {', '.join(f'{run}@{name}' for name in (NEWEST, BEST, *steps))}"


def _sound(checkpoints: Checkpoints, steps: list[int], only_newest: bool) -> dict[int, Stored]:
    """Sound checkpoints by step, or the newest of them; at least one, or `UserError`."""
    sound: dict[int, Stored] = {}
    problems: list[UserError] = []
    for step in reversed(steps):
        try:
            sound[step] = _verified(checkpoints, step)
        except OtherFormat:
            raise
        except UserError as error:
            problems.append(error)
        if sound and only_newest:
            break
    if not sound:
        raise NoneUsable(checkpoints.folder, problems)
    for problem in problems:
        warn(f"{problem} It is passed over.")
    return sound


def _verified(checkpoints: Checkpoints, step: int) -> Stored:
    """The model of a checkpoint that is as it was saved, of its step and of its run's recipe."""
    folder = checkpoints.at(step)
    try:
        return _described(folder, checkpoints.state(step))
    except UserError as error:
        if not os.path.lexists(folder):
            raise Pruned from error
        raise


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like the folder of a checkpoint."""
    return _weights(path).is_file() and (path / STATE).is_file()


def _weights(folder: Path) -> Path:
    """The file of a checkpoint's tensors, or the first of its shards."""
    whole = folder / TENSORS
    if whole.exists() or not folder.is_dir():
        return whole
    return next(iter(shards_of(folder)), whole)


def stored_checkpoint(folder: Path) -> Stored:
    """The model in the folder of a checkpoint, of which every file is as it was saved. In its run,
    it must be of the step that its name says, and of the run's recipe; elsewhere it may have any
    name."""
    whole, step = folder.absolute(), step_of(folder)
    run = whole.parent.parent
    if step is not None and whole.parent.name == "checkpoints" and is_run(run):
        return _described(folder, Checkpoints(folder.parent, recipe_digest(run)).state(step))
    about, state = verify_checkpoint(folder), read_json(folder / STATE)
    check_state(folder / STATE, about["step"], state)
    return _described(folder, state)


def _described(folder: Path, state: dict[str, Any]) -> Stored:
    """The model of a checkpoint with this state: averaged weights where the recipe has an average,
    prepared and named as its run does."""
    recipe, step = from_dict(Recipe, read_yaml(folder / RECIPE)), state["step"]
    names = state["choices"].get("classes", [])
    about: dict[str, Any] = {"recipe": recipe.name, "data": asdict(recipe.data), "step": step}
    accuracy = held_out_accuracy(state)
    if accuracy is not None:
        about["validation"] = {"top1": accuracy}
    preprocess = preprocess_for(recipe, names)
    part = "ema." if recipe.ema else "model."
    return Stored(_weights(folder), recipe.model, preprocess, about, part=part)


def _accuracy(stored: Stored) -> float | None:
    found = stored.about.get("validation")
    return found["top1"] if found else None
