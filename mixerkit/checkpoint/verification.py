"""Every part of a run held against what is known of it. Nothing is changed, mended or locked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoint_rows import check_rows
from mixerkit.checkpoint.checkpoints import RECIPE, Checkpoints, best_of, held_out_accuracy
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.lock import holder
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    OtherFormat,
    listed_entry,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.mending import Repair, choices_problem, recipe_digest, repairs
from mixerkit.checkpoint.opening import is_finished, is_run
from mixerkit.checkpoint.part import NO_CHECKSUM, Part, problem_of, size_of
from mixerkit.checkpoint.records import CHOICES, METRICS, START, TIMING, saved_step
from mixerkit.checkpoint.step_folders import folder_of
from mixerkit.checkpoint.verified_results import parts_of_results
from mixerkit.checkpoint.verified_rows import parts_of_rows
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml

TRIES = 5
"""How often the checkpoints are read again because the run's writer pruned some meanwhile."""


@dataclass(frozen=True)
class Found:
    """A checkpoint as a part of the run, and its state where that is sound."""

    part: Part
    state: dict[str, Any] | None = None
    other_format: bool = False


@dataclass(frozen=True)
class Verification:
    """What was found. `resume_step`: the checkpoint that a resume would go on from; None where it
    would start from nothing, or be refused, and `resume` says which in words."""

    parts: list[Part]
    resume_step: int | None
    best_step: int | None
    resume: str
    mends: bool = False
    """Whether a resume would put something back, or make it again."""

    @property
    def sound(self) -> bool:
        """Whether every part is as it was saved."""
        return not any(part.problem for part in self.parts)


def verify_run(path: Path) -> Verification:
    """Read every file of the run in `path`.

    Raises `UserError` when there is no run at all; whatever is damaged is in the result.
    """
    if not any((path / name).exists() for name in (RECIPE, MANIFEST, "checkpoints")):
        raise UserError(f"{path} is not a run folder. `mixer runs` lists the runs of a folder.")
    mended, writer = _mended(path), holder(path)
    start = _start(path, mended)
    saved = _saved_step(path)  # before the checkpoints, and these before the rows, which may grow
    found = _checkpoints(path)
    states = [one.state for one in found if one.state]
    newest = states[-1] if states else None
    parts = [*_lost(path, saved, found), *(one.part for one in found)]
    fitting = [state for state in states if _fits(path / METRICS, state)]
    step = fitting[-1]["step"] if fitting else None
    results = list(parts_of_results(path, running=bool(writer)))
    again = [part.name for part in results if part.made_again]
    finished = is_finished(path) and not again
    refused = _refused_start(start, mended)
    if not (finished or refused):
        refused = _refused(found, parts, step)
    if refused:
        resume, step = f"A resume would be refused: {refused}.", None
    elif finished:
        resume = _nothing_to_do(mended)
    else:
        resume = _resume(mended, step, again)
    documents = [*_documents(path, newest), *parts_of_rows(path, newest)]
    every = [*start, *documents, *_grown_from(path), *parts, *results]
    return Verification(
        [_with_mending(part, mended) for part in every],
        step,
        best_of({state["step"]: held_out_accuracy(state) for state in states}),
        f"{_running(writer)}{resume}",
        mends=bool(mended or again) and not refused,
    )


def _grown_from(path: Path) -> Iterator[Part]:
    """The run in start/ that was trained first, as one part. Once the run has a checkpoint of its
    own it is needed no more."""
    folder = path / START
    if is_run(folder):
        found = verify_run(folder)
        problems = [f"{part.name} {part.problem}" for part in found.parts if part.problem]
        problem, checked = "; ".join(problems[:1]), all(part.checked for part in found.parts)
        yield Part(START, size_of(folder), problem, "trained first", checked)


def _running(writer: str | None) -> str:
    return f"The run is going on, written by {writer}. " if writer else ""


def _with_mending(part: Part, mended: dict[str, Repair]) -> Part:
    """`part`, whose problem says what a resume does about it."""
    repair = mended.get(part.name)
    if not part.problem or repair is None:
        return part
    return replace(part, problem=repair.said())


def _mended(path: Path) -> dict[str, Repair]:
    """What a resume would put back, by the names of the small files."""
    try:
        return {repair.path.name: repair for repair in repairs(path)}
    except (UserError, OSError):  # something cannot be read now
        return {}


def _fits(path: Path, state: dict[str, Any]) -> bool:
    """Whether a resume would take a sound checkpoint: with its rows, or with none at all."""
    return not problem_of(lambda: check_rows(path, state))


def _refused(found: list[Found], parts: list[Part], step: int | None) -> str:
    """Why a resume would not go on from a checkpoint, nor begin; empty where it would."""
    others = [one.part.step or 0 for one in found if one.other_format]
    if others and (step is None or others[-1] > step):
        return f"the checkpoint of step {others[-1]:,} is of another format"
    if not found:
        return "the checkpoints are lost" if parts else ""
    if not any(one.state for one in found):
        return "no checkpoint is as it was saved"
    if step is None:
        return f"{METRICS} is not as it was at any checkpoint: restore it, or delete it"
    return ""


def _refused_start(start: list[Part], mended: dict[str, Repair]) -> str:
    if any(part.problem and part.name not in mended for part in start):
        return f"{MANIFEST} and {RECIPE} must be as they were saved"
    return ""


def _resume(mended: dict[str, Repair], step: int | None, again: list[str]) -> str:
    where = "start from the beginning" if step is None else f"go on from step {step:,}"
    first = f", after it has put back {' and '.join(mended)}" if mended else ""
    last = f", and make {' and '.join(again)} again" if again else ""
    why = ": there is no checkpoint" if step is None else ""
    return f"A resume would {where}{first}{last}{why}."


def _nothing_to_do(mended: dict[str, Repair]) -> str:
    if mended:
        return f"The run is finished: a resume would put back {' and '.join(mended)}."
    return "The run is finished: a resume would find nothing left to do."


def _start(path: Path, mended: dict[str, Repair]) -> list[Part]:
    """What a run is known by: its manifest, and the recipe that this vouches for."""
    problem = problem_of(lambda: listed_entry(path, RECIPE, read_manifest(path)))
    manifest = Part(MANIFEST, size_of(path / MANIFEST), problem)

    def check_recipe() -> None:
        if not manifest.problem:
            verify_folder(path, kind="run")
        if RECIPE in mended:
            raise UserError(mended[RECIPE].problem)
        from_dict(Recipe, read_yaml(path / RECIPE))

    return [manifest, Part(RECIPE, size_of(path / RECIPE), problem_of(check_recipe))]


def _documents(path: Path, newest: dict[str, Any] | None) -> Iterator[Part]:
    """choices.json, of which the newest sound checkpoint has a copy, and what is half written."""
    choices = path / CHOICES
    wanted = newest["choices"] if newest else {}
    if wanted or os.path.lexists(choices):
        problem = choices_problem(choices, wanted)
        note = "" if newest else NO_CHECKSUM
        yield Part(CHOICES, size_of(choices), problem, note, checked=bool(newest))
    folders = (path, path / "checkpoints", path / "figures")
    for one in [left for folder in folders for left in folder.glob(f"{UNFINISHED}*")]:
        note = "being written, or left by a killed process: a resume removes it"
        yield Part(one.relative_to(path).as_posix(), size_of(one), note=note, checked=False)


# -- checkpoints --------------------------------------------------------------------------


def _checkpoints(path: Path) -> list[Found]:
    """Every checkpoint, oldest first, read whole."""
    checkpoints = Checkpoints(path / "checkpoints", recipe_digest(path))
    found: list[Found] = []
    for _ in range(TRIES):
        steps = checkpoints.named()
        found = [_checkpoint(path, checkpoints, step) for step in steps]
        there = [os.path.lexists(checkpoints.at(step)) for step in steps]
        if all(there):
            return found
    return [one for one, is_there in zip(found, there, strict=True) if is_there]


def _saved_step(path: Path) -> int | None:
    """The step of the newest checkpoint that was saved, by timing.jsonl; None where nothing says
    that there was one."""
    try:
        return saved_step(path / TIMING)
    except (UserError, OSError):
        return None


def _lost(path: Path, saved: int | None, found: list[Found]) -> Iterator[Part]:
    """What is said of checkpoints that were saved and are not there."""
    newest = max((one.part.step or 0 for one in found), default=-1)
    if saved is not None and saved > newest:
        folder = path / "checkpoints"
        name = folder_of(folder, saved) if found else folder
        text = f"{name} is missing, though a checkpoint was saved at step {saved:,}. Put it back."
        yield Part(name.relative_to(path).as_posix(), 0, text)


def _checkpoint(path: Path, checkpoints: Checkpoints, step: int) -> Found:
    folder = checkpoints.at(step)
    name, size = folder.relative_to(path).as_posix(), size_of(folder)
    try:
        _, state = checkpoints.read(step)
    except (UserError, OSError) as error:
        part = Part(name, size, str(error), step=step)
        return Found(part, other_format=isinstance(error, OtherFormat))
    return Found(Part(name, size, step=step, validation=held_out_accuracy(state)), state)
