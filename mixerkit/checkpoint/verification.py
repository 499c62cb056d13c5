"""Every part of a run held against what is known of it. Nothing is changed, mended or locked."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.checkpoint_rows import are_gone, check_rows
from mixerkit.checkpoint.checkpoints import RECIPE, Checkpoints, best_of, held_out_accuracy
from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.find import at
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    describe_file,
    listed_entry,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.mending import Repair, choices_problem, repairs
from mixerkit.checkpoint.merge import read_tensors_of
from mixerkit.checkpoint.records import (
    CHOICES,
    EVALUATION,
    METRICS,
    QUARANTINE,
    TIMING,
    read_metrics,
    read_quarantine,
    read_timings,
)
from mixerkit.checkpoint.rows import whole_size
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml

TRIES = 5
"""How often the checkpoints are read again because the run's writer pruned some meanwhile."""


NO_CHECKSUM = "no checksum"


@dataclass(frozen=True)
class Part:
    """One part of a run. `size` in bytes; `problem` says what is wrong, and is empty where nothing
    was found; `note` says what is no damage and still worth knowing."""

    name: str
    size: int
    problem: str = ""
    note: str = ""
    checked: bool = True
    """Whether all of it was held against a checksum or a copy; else only its form."""
    step: int | None = None
    """Of a checkpoint."""
    validation: float | None = None
    """Accuracy of a checkpoint on held-out images, as a share, where it was measured."""


@dataclass(frozen=True)
class Found:
    """A checkpoint as a part of the run, and its state where that is sound."""

    part: Part
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Verification:
    """What was found. `resume_step`: the checkpoint that a resume would go on from; None where it
    would start from nothing, or be refused, and `resume` says which in words."""

    parts: list[Part]
    resume_step: int | None
    best_step: int | None
    resume: str

    @property
    def sound(self) -> bool:
        """Whether every part is as it was saved."""
        return not any(part.problem for part in self.parts)


def verify_run(path: Path) -> Verification:
    """Read every file of the run in `path` that cannot be made again.

    Raises `UserError` when there is no run at all; whatever is damaged is in the result.
    """
    if not any((path / name).exists() for name in (RECIPE, MANIFEST, "checkpoints")):
        raise UserError(f"{path} is not a run folder. `mixer runs` lists the runs of a folder.")
    mended = _mended(path)
    start = _start(path, mended)
    checkpoints = _checkpoints(path, mended)  # before the rows, which may be growing
    parts = [found.part for found in checkpoints]
    states = [found.state for found in checkpoints if found.state]
    newest = states[-1] if states else None
    fitting = [state for state in states if _fits(path / METRICS, state)]
    step = fitting[-1]["step"] if fitting else None
    refused = _refused(start, mended, parts, newest, step)
    return Verification(
        [*start, *_documents(path, newest), *_rows(path, newest), *parts, *_model(path)],
        None if refused else step,
        best_of({state["step"]: held_out_accuracy(state) for state in states}),
        f"A resume would be refused: {refused}." if refused else _resume(mended, step),
    )


def _mended(path: Path) -> dict[str, Repair]:
    """What a resume would put back, by the names of the small files."""
    try:
        return {repair.path.name: repair for repair in repairs(path)}
    except (UserError, OSError):  # something cannot be read now
        return {}


def _fits(path: Path, state: dict[str, Any]) -> bool:
    """Whether a resume would take a sound checkpoint: with its rows, or with none at all."""
    return not _problem(lambda: check_rows(path, state))


def _refused(
    start: list[Part],
    mended: dict[str, Repair],
    checkpoints: list[Part],
    newest: dict[str, Any] | None,
    step: int | None,
) -> str:
    """Why a resume would be refused; empty where it would not."""
    if any(part.problem and part.name not in mended for part in start):
        return f"{MANIFEST} and {RECIPE} must be as they were saved"
    if checkpoints and newest is None:
        return "no checkpoint is as it was saved"
    if newest and step is None:
        return f"{METRICS} is not as it was at any checkpoint: restore it, or delete it"
    return ""


def _resume(mended: dict[str, Repair], step: int | None) -> str:
    where = "start from the beginning" if step is None else f"go on from step {step:,}"
    first = f", after it has put back {' and '.join(mended)}" if mended else ""
    why = ": there is no checkpoint" if step is None else ""
    return f"A resume would {where}{first}{why}."


def _problem(check: Callable[[], object]) -> str:
    """What `check` says is wrong; empty when it returns."""
    try:
        check()
    except (UserError, OSError) as error:
        return str(error)
    return ""


def _part(folder: Path, name: str, check: Callable[[], object]) -> Part:
    return Part(name, _size(folder / name), _problem(check))


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; those that go meanwhile count nothing."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        return sum(_size(inner) for inner in path.iterdir())
    except FileNotFoundError:
        return 0


def _start(path: Path, mended: dict[str, Repair]) -> list[Part]:
    """What a run is known by: its manifest, and the recipe that this vouches for."""
    manifest = _part(path, MANIFEST, lambda: listed_entry(path, RECIPE, read_manifest(path)))

    def check_recipe() -> None:
        if not manifest.problem:
            verify_folder(path, kind="run")
        if RECIPE in mended:
            raise UserError(mended[RECIPE].problem)
        from_dict(Recipe, read_yaml(path / RECIPE))

    return [manifest, _part(path, RECIPE, check_recipe)]


def _documents(path: Path, newest: dict[str, Any] | None) -> Iterator[Part]:
    """choices.json, of which the newest sound checkpoint has a copy, and what has none."""
    choices = path / CHOICES
    wanted = newest["choices"] if newest else {}
    if wanted or os.path.lexists(choices):
        problem = choices_problem(choices, wanted)
        note = "" if newest else NO_CHECKSUM
        yield Part(CHOICES, _size(choices), problem, note, checked=bool(newest))
    if os.path.lexists(path / EVALUATION):
        problem = _problem(partial(read_json, path / EVALUATION))
        size = _size(path / EVALUATION)
        yield Part(EVALUATION, size, problem, NO_CHECKSUM, checked=False)
    folders = (path, path / "checkpoints", path / "figures")
    for one in [left for folder in folders for left in folder.glob(f"{UNFINISHED}*")]:
        note = "being written, or left by a killed process: a resume removes it"
        yield Part(one.relative_to(path).as_posix(), _size(one), note=note, checked=False)


# -- rows ---------------------------------------------------------------------------------


def _rows(path: Path, newest: dict[str, Any] | None) -> Iterator[Part]:
    metrics = path / METRICS
    if os.path.lexists(metrics) or (newest and are_gone(metrics, newest)):
        yield _metrics(metrics, newest)
    for name, read in ((TIMING, read_timings), (QUARANTINE, read_quarantine)):
        if os.path.lexists(path / name):
            yield _unchecked_rows(path / name, read)


def _metrics(path: Path, newest: dict[str, Any] | None) -> Part:
    """The rows of the newest sound checkpoint must be those that it was saved with."""
    if not os.path.lexists(path):
        lost = f"{path} is missing. A resume would go on without the earlier rows."
        return Part(METRICS, 0, lost)
    problem = _problem(lambda: read_metrics(path)) or _problem_of_end(path)
    if problem:
        return Part(METRICS, _size(path), problem)
    problem = _steps_problem(path, read_metrics(path))
    if newest and not problem:
        problem = _problem(lambda: check_rows(path, newest))
    note = _counted(path)
    if newest and _size(path) > newest["metrics_bytes"]:
        note += f"; {NO_CHECKSUM} of those after step {newest['step']:,}"
    elif not newest:
        note += f"; {NO_CHECKSUM}"
    return Part(METRICS, _size(path), problem, note, checked=bool(newest))


def _unchecked_rows(path: Path, read: Callable[[Path], tuple[object, str]]) -> Part:
    """Rows that nothing vouches for: only their form is looked at."""
    problem = _problem(lambda: read(path)) or read(path)[1] or _problem_of_end(path)
    note = "" if problem else f"{_counted(path)}; {NO_CHECKSUM}"
    return Part(path.name, _size(path), problem, note, checked=False)


def _problem_of_end(path: Path) -> str:
    content = path.read_bytes()
    whole = whole_size(content)
    if b"\0" not in content[whole:]:
        return ""
    return f"{path} holds zeros from byte {whole} on: rows were lost when the power went."


def _counted(path: Path) -> str:
    content = path.read_bytes()
    count = content.count(b"\n", 0, whole_size(content))
    torn = "; the last line is being written, or torn by a kill: a resume removes it"
    return f"{count:,} rows{torn if whole_size(content) < len(content) else ''}"


def _steps_problem(path: Path, rows: list[dict[str, object]]) -> str:
    """Every row of metrics has a step, and none is below that of the row before."""
    before = 0
    for number, row in enumerate(rows, start=1):
        step = row.get("step")
        if type(step) is not int or step < before:
            return f"{path}, line {number}: expected a step of at least {before}, found {step!r}."
        before = step
    return ""


# -- checkpoints and model ----------------------------------------------------------------


def _checkpoints(path: Path, mended: dict[str, Repair]) -> list[Found]:
    """Every checkpoint, oldest first, read whole."""
    checkpoints = Checkpoints(path / "checkpoints", _recipe_digest(path, mended))
    found: list[Found] = []
    for _ in range(TRIES):
        steps = checkpoints.named()
        found = [_checkpoint(path, checkpoints, step) for step in steps]
        there = [os.path.lexists(checkpoints.at(step)) for step in steps]
        if all(there):
            return found
    return [one for one, is_there in zip(found, there, strict=True) if is_there]


def _checkpoint(path: Path, checkpoints: Checkpoints, step: int) -> Found:
    folder = checkpoints.at(step)
    name, size = folder.relative_to(path).as_posix(), _size(folder)
    try:
        _, state = checkpoints.read(step)
    except (UserError, OSError) as error:
        return Found(Part(name, size, str(error), step=step))
    return Found(Part(name, size, step=step, validation=held_out_accuracy(state)), state)


def _recipe_digest(path: Path, mended: dict[str, Repair]) -> str:
    """SHA-256 of the recipe as the manifest has it, or else of the recipe that there would be."""
    try:
        return str(read_manifest(path)["files"][RECIPE]["sha256"])
    except (UserError, KeyError, TypeError):
        if RECIPE in mended:
            return hashlib.sha256(mended[RECIPE].content).hexdigest()
        is_there = (path / RECIPE).is_file()
        return str(describe_file(path / RECIPE)["sha256"]) if is_there else ""


def _model(path: Path) -> Iterator[Part]:
    if os.path.lexists(path / "model"):
        yield _part(path, "model", lambda: read_tensors_of(at(path / "model")))
