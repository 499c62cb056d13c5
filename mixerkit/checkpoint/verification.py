"""Every part of a run held against what is known of it. Nothing is changed, mended or locked."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mixerkit.checkpoint.checkpoints import Checkpoints, best_of, held_out_accuracy
from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    describe_file,
    listed_entry,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.merge import read_tensors_of
from mixerkit.checkpoint.rows import read_rows, whole_size
from mixerkit.checkpoint.run import CHOICES, EVALUATION, METRICS, RECIPE, ROWS
from mixerkit.checkpoint.stored import at
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml

TRIES = 5
"""How often the checkpoints are read again because the run's writer pruned some meanwhile."""


@dataclass(frozen=True)
class Part:
    """One part of a run. `size` in bytes; `problem` says what is wrong, and is empty where all is
    as it was saved; `note` says what is no damage and still worth knowing."""

    name: str
    size: int
    problem: str = ""
    note: str = ""
    step: int | None = None
    """Of a checkpoint."""
    validation: float | None = None
    """Accuracy of a checkpoint on held-out images, as a share, where it was measured."""
    metrics_bytes: int = 0
    """How much of metrics.jsonl a checkpoint goes with."""


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
    start = _start(path)
    checkpoints = _checkpoints(path)  # before the rows, which may be growing
    sound = [part for part in checkpoints if not part.problem]
    newest = sound[-1] if sound else None
    rows = [_rows(path / name, newest) for name in ROWS if os.path.lexists(path / name)]
    opened, usable = not any(part.problem for part in start), bool(newest or not checkpoints)
    return Verification(
        [*start, *_documents(path), *rows, *checkpoints, *_model(path)],
        newest.step if newest and opened else None,
        best_of({part.step: part.validation for part in sound if part.step is not None}),
        _resume(newest) if opened and usable else _refused(opened),
    )


def _resume(newest: Part | None) -> str:
    if newest is None:
        return "A resume would start from the beginning: there is no checkpoint."
    return f"A resume would go on from step {newest.step:,}."


def _refused(opened: bool) -> str:
    if opened:
        return "A resume would be refused: no checkpoint is as it was saved."
    return f"A resume would be refused: {MANIFEST} and {RECIPE} must be as they were saved."


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


def _start(path: Path) -> list[Part]:
    """What a run is known by: its manifest, and the recipe that this vouches for."""
    manifest = _part(path, MANIFEST, lambda: listed_entry(path, RECIPE, read_manifest(path)))

    def check_recipe() -> None:
        if not manifest.problem:
            verify_folder(path, kind="run")
        from_dict(Recipe, read_yaml(path / RECIPE))

    return [manifest, _part(path, RECIPE, check_recipe)]


def _documents(path: Path) -> Iterator[Part]:
    for name in (CHOICES, EVALUATION):
        if os.path.lexists(path / name):
            yield _part(path, name, partial(read_json, path / name))
    left = [*path.glob(f"{UNFINISHED}*"), *(path / "checkpoints").glob(f"{UNFINISHED}*")]
    for one in left:
        note = "being written, or left by a killed process: a resume removes it"
        yield Part(one.relative_to(path).as_posix(), _size(one), note=note)


# -- rows ---------------------------------------------------------------------------------


def _rows(path: Path, newest: Part | None) -> Part:
    """A file of rows; that of metrics must reach as far as the newest sound checkpoint says."""
    problem = _problem(lambda: read_rows(path))
    if problem:
        return Part(path.name, _size(path), problem)
    content, rows = path.read_bytes(), read_rows(path)
    whole = whole_size(content)
    end = content[whole:]
    if b"\0" in end:
        problem = f"{path} holds zeros from byte {whole} on: rows were lost when the power went."
    elif path.name == METRICS:
        problem = _steps_problem(path, rows) or _reach_problem(path, content[:whole], newest)
    note = f"{len(rows):,} rows"
    if end and not problem:
        note += "; the last line is being written, or torn by a kill: a resume removes it"
    return Part(path.name, len(content), problem, note)


def _steps_problem(path: Path, rows: list[dict[str, object]]) -> str:
    """Every row of metrics has a step, and none is below that of the row before."""
    before = 0
    for number, row in enumerate(rows, start=1):
        step = row.get("step")
        if type(step) is not int or step < before:
            return f"{path}, line {number}: expected a step of at least {before}, found {step!r}."
        before = step
    return ""


def _reach_problem(path: Path, whole: bytes, newest: Part | None) -> str:
    if newest is None or whole_size(whole[: newest.metrics_bytes]) == newest.metrics_bytes:
        return ""
    return (
        f"{path} has {len(whole):,} bytes of whole rows, and the checkpoint of step "
        f"{newest.step} goes with {newest.metrics_bytes:,}: rows were lost."
    )


# -- checkpoints and model ----------------------------------------------------------------


def _checkpoints(path: Path) -> list[Part]:
    """Every checkpoint, oldest first, read whole."""
    checkpoints = Checkpoints(path / "checkpoints", _recipe_digest(path))
    parts: list[Part] = []
    for _ in range(TRIES):
        steps = checkpoints.named()
        parts = [_checkpoint(path, checkpoints, step) for step in steps]
        there = [os.path.lexists(checkpoints.at(step)) for step in steps]
        if all(there):
            return parts
    return [part for part, is_there in zip(parts, there, strict=True) if is_there]


def _checkpoint(path: Path, checkpoints: Checkpoints, step: int) -> Part:
    folder = checkpoints.at(step)
    name, size = folder.relative_to(path).as_posix(), _size(folder)
    try:
        _, state = checkpoints.read(step)
    except (UserError, OSError) as error:
        return Part(name, size, str(error), step=step)
    accuracy, offset = held_out_accuracy(state), int(state["metrics_bytes"])
    return Part(name, size, step=step, validation=accuracy, metrics_bytes=offset)


def _recipe_digest(path: Path) -> str:
    """SHA-256 of the recipe as the manifest has it, or else of the recipe itself."""
    try:
        return str(read_manifest(path)["files"][RECIPE]["sha256"])
    except (UserError, KeyError, TypeError):
        is_there = (path / RECIPE).is_file()
        return str(describe_file(path / RECIPE)["sha256"]) if is_there else ""


def _model(path: Path) -> Iterator[Part]:
    if os.path.lexists(path / "model"):
        yield _part(path, "model", lambda: read_tensors_of(at(path / "model")))
