"""The run folder: what a run writes, what a person keeps, and what resuming reads.

    recipe.yaml  manifest.json  lock  choices.json
    metrics.jsonl  timing.jsonl  quarantine.jsonl
    checkpoints/step-00001234/{tensors.safetensors, state.json, manifest.json}
    model/  evaluation.json  figures/  report.html

One writer at a time holds the lock; readers need nothing and never see half a file.
"""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from mixerkit.checkpoint.checkpoints import Checkpoints
from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.files import (
    UNFINISHED,
    make_folder,
    remove_unfinished,
    sync,
    write_atomic,
)
from mixerkit.checkpoint.load import save_model
from mixerkit.checkpoint.lock import Lock, holder
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    describe_file,
    manifest_text,
    read_manifest,
    verify_folder,
)
from mixerkit.checkpoint.rows import append_row, cut_back, cut_torn_end, durable_size, read_rows
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import describe_machine, describe_versions
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml, write_yaml

RECIPE, CHOICES, EVALUATION = "recipe.yaml", "choices.json", "evaluation.json"
METRICS, TIMING, QUARANTINE = ROWS = ("metrics.jsonl", "timing.jsonl", "quarantine.jsonl")


class RunFolder:
    """One run on disk, opened for reading or, with the lock, for writing."""

    def __init__(self, path: Path, lock: Lock | None) -> None:
        self.path, self._lock = path, lock
        digest = read_manifest(path)["files"][RECIPE]["sha256"]
        self.checkpoints = Checkpoints(path / "checkpoints", digest)

    # -- opening and closing ---------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Self:
        """A new run in `path`, which must be empty or absent, opened for writing."""
        try:
            _check_free(path)
            make_folder(path)
            lock = Lock(path)
        except OSError as error:
            raise UserError(f"Cannot make the run folder {path}: {error.strerror}.") from error
        try:
            _check_free(path)  # another process may have been faster
            remove_unfinished(path)
            write_atomic(path / RECIPE, write_yaml(recipe).encode())
            _write_run_manifest(path)  # last: from here on it is a run
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path, writing: bool = False) -> Self:
        """The run in `path`. With `writing`, takes the lock and clears what a kill left."""
        if not is_run(path):
            raise UserError(
                f"{path} is not a run folder: expected {RECIPE} and {MANIFEST} in it. "
                f"`mixer runs` lists the runs of a folder."
            )
        verify_folder(path, kind="run", must_list=(RECIPE,))
        run = cls(path, Lock(path) if writing else None)
        if writing:
            run._clear()
        return run

    def _clear(self) -> None:
        """Take away what a kill left, and put on the disk the names that it left unsynced."""
        for folder in (self.path, self.checkpoints.folder):
            if folder.is_dir():
                remove_unfinished(folder)
                sync(folder)
        for name in ROWS:
            cut_torn_end(self.path / name)

    def close(self) -> None:
        """Give the lock back; closing twice is harmless."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_writing(self) -> None:
        assert self._lock, "the run is open for reading"

    # -- recipe, choices, figures ----------------------------------------------------------

    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return from_dict(Recipe, read_yaml(self.path / RECIPE))

    def choices(self) -> dict[str, Any]:
        """What was decided by measurement (threads, compile or not); empty at first."""
        path = self.path / CHOICES
        return read_json(path) if path.exists() else {}

    def save_choices(self, choices: dict[str, Any]) -> None:
        """Replace the stored choices."""
        self._check_writing()
        write_atomic(self.path / CHOICES, json_bytes(choices))

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl; NaN and infinity raise `ValueError`."""
        self._check_writing()
        append_row(self.path / METRICS, row)

    def log_timing(self, row: dict[str, Any]) -> None:
        """Append one row to timing.jsonl, which is kept apart because no two runs agree on it."""
        self._check_writing()
        append_row(self.path / TIMING, row)

    def log_quarantine(self, row: dict[str, Any]) -> None:
        """Append one row about an unreadable image to quarantine.jsonl."""
        self._check_writing()
        append_row(self.path / QUARANTINE, row)

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a line that is being written is left for later."""
        return read_rows(self.path / METRICS)

    def timings(self) -> list[dict[str, Any]]:
        """All rows of timing.jsonl."""
        return read_rows(self.path / TIMING)

    def quarantine(self) -> list[dict[str, Any]]:
        """All rows of quarantine.jsonl, which resuming does not cut back."""
        return read_rows(self.path / QUARANTINE)

    def save_evaluation(self, name: str, content: dict[str, Any]) -> None:
        """Replace evaluation.json by `content`, measured on the split called `name`."""
        self._check_writing()
        write_atomic(self.path / EVALUATION, json_bytes({"split": name} | content))

    def evaluation(self) -> dict[str, Any] | None:
        """What was measured at the end of the run, or None before that."""
        path = self.path / EVALUATION
        return read_json(path) if path.exists() else None

    # -- checkpoints -----------------------------------------------------------------------

    def save_checkpoint(
        self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int
    ) -> Path:
        """Put a checkpoint of `step` on disk, then remove all but the `keep` newest sound ones and
        the one with the highest `validation` in its state (top-1 as a share, or None).

        `state` is JSON and gets `step`, `metrics_bytes`, the length of metrics.jsonl now, and
        `validation`, what was logged of this step. A sound checkpoint of the same step and state
        is left as it is; any other of that step gives its name to the new one.
        """
        self._check_writing()
        try:  # synced first: the offset must not outlive the rows that it counts
            for path in (self.path / TIMING, self.path / QUARANTINE):
                if path.exists():
                    sync(path)
            offset = {"step": step, "metrics_bytes": durable_size(self.path / METRICS)}
        except OSError as error:
            raise self.checkpoints.not_saved(step, tensors, error) from error
        rows = [row for row in self.metrics() if row.get("step") == step]
        measured = {"validation": max(self._top1(rows, "validation"), default=None)}
        return self.checkpoints.save(step, tensors, measured | state | offset, keep)

    def newest_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the newest checkpoint that passes every check; None without any.

        Damaged ones are named on stderr and passed over; if all are, that is a `UserError`.
        """
        return self.checkpoints.newest()

    def cut_metrics(self, state: dict[str, Any] | None) -> None:
        """Cut metrics.jsonl back to what it was at a checkpoint; None: before the first one."""
        self._check_writing()
        cut_back(self.path / METRICS, int(state["metrics_bytes"]) if state else 0)

    # -- the result ------------------------------------------------------------------------

    def save_model(self, model: MlpMixer, preprocess: Preprocess, about: dict[str, Any]) -> Path:
        """Write `model/`, which makes the run "finished"; a former one is replaced."""
        self._check_writing()
        save_model(self.path / "model", model, preprocess, about, replace=True)
        return self.path / "model"

    def state(self) -> str:
        """ "running" while a process writes in it, else "finished" (has a model) or "stopped"."""
        if holder(self.path):
            return "running"
        return "finished" if self.is_finished() else "stopped"

    def is_finished(self) -> bool:
        """Whether the run has come to its end and kept its model."""
        return (self.path / "model" / MANIFEST).exists()

    def summary(self) -> dict[str, Any]:
        """What `mixer runs` shows; figures that do not exist yet are None."""
        rows = self.metrics()
        steps = [*self._whole_numbers(rows, "step", METRICS), *self.checkpoints.steps()]
        total = self._whole_numbers([self.choices()], "total_steps", CHOICES)
        test = self._top1(rows, "test")
        files = [path for path in (self.path / RECIPE, self.path / METRICS) if path.exists()]
        touched = max(path.stat().st_mtime for path in files)
        return {
            "name": self.path.name,
            "path": str(self.path),
            "recipe": self.recipe().name,
            "state": self.state(),
            "step": max(steps, default=0),
            "total_steps": total[0] if total else None,
            "best_validation": max(self._top1(rows, "validation"), default=None),
            "test_accuracy": test[-1] if test else None,
            "updated": datetime.fromtimestamp(touched, UTC).isoformat(timespec="seconds"),
            "problem": None,
        }

    def _top1(self, rows: list[dict[str, Any]], split: str) -> list[float]:
        found = [row["top1"] for row in rows if row.get("split") == split and "top1" in row]
        return self._checked(found, (int, float), f"numbers under 'top1' in {METRICS}")

    def _whole_numbers(self, rows: list[dict[str, Any]], key: str, file: str) -> list[int]:
        found = [row[key] for row in rows if key in row]
        return self._checked(found, (int,), f"whole numbers under '{key}' in {file}")

    def _checked(self, values: list[Any], kinds: tuple[type, ...], what: str) -> list[Any]:
        for value in values:
            if type(value) not in kinds:
                raise UserError(f"{self.path}: expected {what}, found {value!r:.40}.")
        return values


def is_run(path: Path) -> bool:
    """Whether `path` looks like a run folder."""
    return (path / RECIPE).is_file() and (path / MANIFEST).is_file()


def _check_free(path: Path) -> None:
    """Refuse a folder that holds a run or anything else but an unfinished start of ours."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder: give another --out.")
    if is_run(path):
        raise UserError(_occupied(path))
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
        found, writer = RunFolder.open(path).summary(), holder(path)
    except (UserError, OSError) as error:
        what = str(error)
    else:
        what = f"recipe '{found['recipe']}', step {found['step']}, {found['state']}"
        what = f"{what}, written by {writer}" if writer else what
        if found["state"] == "stopped":
            resume = f"`mixer train --resume {shlex.quote(str(path))}`"
            start = f"Go on with it: {resume}; or start another: "
    return f"{path} already holds a run ({what}). {start}give another --out."


def _write_run_manifest(path: Path) -> None:
    about = {
        "kind": "run",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    files = {RECIPE: describe_file(path / RECIPE)}
    write_atomic(path / MANIFEST, manifest_text(about, files))
