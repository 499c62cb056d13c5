"""The small files of a run, put back from the copies that every checkpoint holds."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoints import (
    RECIPE,
    STATE,
    check_format,
    check_state,
)
from mixerkit.checkpoint.documents import json_bytes, read_json, read_limited
from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    OtherFormat,
    check_file,
    listed_entry,
    manifest_text,
    read_manifest,
    verify_folder,
    without_advice,
)
from mixerkit.checkpoint.records import CHOICES, read_choices
from mixerkit.checkpoint.step_folders import folder_of, named_steps, steps_in
from mixerkit.errors import Unreadable, UserError, warn
from mixerkit.spec.strict import YAML_LIMIT


@dataclass(frozen=True)
class Copy:
    """What the checkpoint of a step holds, or knows, of the files beside it."""

    step: int
    recipe: bytes
    choices: dict[str, Any]
    metrics_bytes: int
    about: dict[str, Any]
    """What its manifest says of it, and of where it was made."""


@dataclass(frozen=True)
class Repair:
    """A file that is not as it was saved: what is wrong, and what it is to hold.

    `step`: that of the checkpoint which says so; None where nothing was decided that counts.
    """

    path: Path
    problem: str
    content: bytes
    step: int | None

    def said(self) -> str:
        """What is wrong and what a resume does about it."""
        what = without_advice(self.problem)
        if self.step is None:
            return f"{what} A resume empties it: no checkpoint depends on it."
        return f"{what} A resume puts it back as the checkpoint of step {self.step:,} has it."


def mend(path: Path) -> None:
    """Put back what `repairs` names, a warning for each; only for whoever holds the run's lock."""
    for repair in list(repairs(path)):
        write_atomic(repair.path, repair.content)
        warn(repair.said())


def repairs(path: Path) -> Iterator[Repair]:
    """What is damaged of the recipe, the manifest and the choices of a run, and can be put back.

    Raises `Unreadable` for what could not be read now, and may be whole.
    """
    yield from _repairs_of_start(path)
    yield from _repairs_of_choices(path)


def with_advice(path: Path, name: str, error: UserError) -> UserError:
    """An error about the file `name` of the run in `path`; it says so where a resume mends it."""
    try:
        start = (RECIPE, MANIFEST)
        names = start if name in start else (name,)
        found = [repair for repair in repairs(path) if repair.path.name in names]
    except (UserError, OSError):
        return error
    if not found:
        return error
    steps = f" from the checkpoint of step {found[0].step:,}" if found[0].step is not None else ""
    resume = f"`mixer train --resume {shlex.quote(str(path))}`"
    return UserError(f"{without_advice(error)} {resume} puts it back{steps}.")


def is_mendable(path: Path) -> bool:
    """Whether `path` has checkpoints, from which a lost recipe or manifest can be put back."""
    return bool(steps_in(path / "checkpoints"))


def recipe_digest(path: Path) -> str:
    """SHA-256 of the recipe that the run in `path` was started with: by its manifest, or else of
    the copy that a resume would trust, or else of what is there."""
    digest = _listed_digest(path)
    if digest is not None:
        return digest
    try:
        recipe = _recipe_found(path)
    except Unreadable:
        recipe = b""
    copy = _copy_to_trust(path, None, recipe)
    return _digest(copy.recipe if copy else recipe)


def run_manifest(recipe: bytes, created: datetime, where: dict[str, Any]) -> bytes:
    """The manifest of a run: it vouches for the recipe, and says when the run began, and `where`:
    `machine` and `versions`, as far as they are known."""
    about = {"kind": "run", "created": created.isoformat(timespec="seconds")} | where
    return manifest_text(about, {RECIPE: {"sha256": _digest(recipe), "size": len(recipe)}})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- copies -------------------------------------------------------------------------------


def copies(path: Path) -> Iterator[Copy]:
    """Of every checkpoint of the run whose manifest vouches for its copies, newest first."""
    checkpoints = path / "checkpoints"
    for step in reversed(steps_in(checkpoints)):
        try:
            yield _copy(folder_of(checkpoints, step), step)
        except UserError:
            continue


def _copy(folder: Path, step: int) -> Copy:
    manifest = read_manifest(folder, links=False)
    about = manifest["about"]
    check_format(folder, manifest)
    for name in (RECIPE, STATE):
        check_file(folder, name, listed_entry(folder, name, manifest), links=False)
    recipe, state = read_limited(folder / RECIPE, YAML_LIMIT), read_json(folder / STATE)
    check_state(folder / STATE, step, state)
    if (about.get("step"), about.get("recipe")) != (step, _digest(recipe)):
        raise UserError(f"{folder} is not the checkpoint of step {step} of this recipe.")
    return Copy(step, recipe, state["choices"], state["metrics_bytes"], about)


# -- recipe and manifest ------------------------------------------------------------------


def _repairs_of_start(path: Path) -> Iterator[Repair]:
    try:
        verify_folder(path, kind="run", must_list=(RECIPE,))
    except (Unreadable, OtherFormat):
        raise
    except UserError as error:
        problem = str(error)
    else:
        return
    digest, recipe = _listed_digest(path), _recipe_found(path)
    copy = _copy_to_trust(path, digest, recipe)
    if copy is None:
        return
    if recipe != copy.recipe:
        state = "is not the recipe of the checkpoints" if recipe else "is missing, or empty"
        lost = problem if digest else f"{path / RECIPE} {state}."
        yield Repair(path / RECIPE, lost, copy.recipe, copy.step)
    if digest is None:
        oldest = min(entry.lstat().st_mtime for entry in path.iterdir())
        where = _where_it_began(list(copies(path))[-1])
        text = run_manifest(copy.recipe, datetime.fromtimestamp(oldest, UTC), where)
        yield Repair(path / MANIFEST, problem, text, copy.step)


def _where_it_began(oldest: Copy) -> dict[str, Any]:
    """What the oldest checkpoint knows of the machine and the versions that the run began with."""
    known = {key: oldest.about.get(key, "unknown") for key in ("device", "instruction_set")}
    return {"machine": known, "versions": {"torch": oldest.about.get("torch", "unknown")}}


def _listed_digest(path: Path) -> str | None:
    """SHA-256 of the recipe by the run's manifest; None where that is damaged, or another's."""
    try:
        manifest = read_manifest(path)
        return str(listed_entry(path, RECIPE, manifest)["sha256"]) if _is_run(manifest) else None
    except (UserError, KeyError):
        return None


def _is_run(manifest: dict[str, Any]) -> bool:
    return bool(manifest["about"].get("kind") == "run")


def _recipe_found(path: Path) -> bytes:
    try:
        return read_limited(path / RECIPE, YAML_LIMIT)
    except Unreadable:
        raise
    except UserError:
        return b""


def _copy_to_trust(path: Path, digest: str | None, recipe: bytes) -> Copy | None:
    """The copy that the run's manifest vouches for. Without one: a copy of the recipe that is
    there, or else the newest."""
    known = list(copies(path))
    if digest is not None:
        return next((copy for copy in known if _digest(copy.recipe) == digest), None)
    return next((copy for copy in known if copy.recipe == recipe), next(iter(known), None))


# -- choices ------------------------------------------------------------------------------


def _repairs_of_choices(path: Path) -> Iterator[Repair]:
    newest = next(copies(path), None)
    if newest is None and named_steps(path / "checkpoints"):
        return  # what they were is not known
    wanted = newest.choices if newest else {}
    problem = choices_problem(path / CHOICES, wanted)
    if problem:
        yield Repair(path / CHOICES, problem, json_bytes(wanted), newest.step if newest else None)


def choices_problem(path: Path, wanted: dict[str, Any]) -> str:
    """How choices.json is damaged, or differs from a checkpoint's copy, which it may exceed."""
    try:
        found = read_choices(path)
    except Unreadable:
        raise
    except UserError as error:
        return str(error)
    changed = [key for key, value in wanted.items() if key not in found or found[key] != value]
    if not changed:
        return ""
    return f"{path} does not say what a checkpoint says of {', '.join(changed)}."
