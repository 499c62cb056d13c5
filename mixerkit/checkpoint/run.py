"""The run folder: what a run writes, what a person keeps, and what resuming reads.

    recipe.yaml  manifest.json  lock  choices.json  stopped.json
    metrics.jsonl  timing.jsonl  quarantine.jsonl
    checkpoints/step-00001234/{tensors.safetensors, state.json, recipe.yaml, manifest.json}
    model/  evaluation.json  figures/  report.html

One writer at a time holds the lock; readers need nothing and never see half a file.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from mixerkit.checkpoint import opening, records, trouble
from mixerkit.checkpoint.checkpoint_rows import (
    NO_ROWS,
    are_gone,
    newest_with_rows,
    oldest_with_rows,
    rows_now,
)
from mixerkit.checkpoint.checkpoints import RECIPE, Checkpoints, Put
from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.files import make_folder, sync, write_atomic
from mixerkit.checkpoint.load import save_model
from mixerkit.checkpoint.lock import Lock
from mixerkit.checkpoint.mending import with_advice
from mixerkit.checkpoint.outcome import MODEL, damaged_results, vouched
from mixerkit.checkpoint.records import CHOICES, EVALUATION, METRICS, QUARANTINE, STOPPED, TIMING
from mixerkit.checkpoint.rows import append_row, cut_back
from mixerkit.checkpoint.stopped import in_a_sentence, note_stop
from mixerkit.errors import RunFailed, UserError, warn
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import from_dict, read_yaml


class RunFolder:
    """One run on disk, opened for reading or, with the lock, for writing."""

    def __init__(self, path: Path, lock: Lock | None) -> None:
        self.path, self._lock = path, lock
        recipe = (path / RECIPE).read_bytes()
        digest = hashlib.sha256(recipe).hexdigest()
        self.checkpoints = Checkpoints(path / "checkpoints", digest, recipe)
        self._choices = records.read_choices(path / CHOICES) if lock else {}
        """What the writer knows, whatever becomes of the file: checkpoints hold a copy."""
        self._said: set[str] = set()
        self._begun = self._restored = False
        """Whether what stopped the run is over, and whether it stands at a step now."""

    # -- opening and closing ---------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> Self:
        """A new run in `path`, which must be empty or absent, opened for writing."""
        try:
            opening.check_free(path)
            make_folder(path)
            return cls._locked(path, lambda: opening.start(path, recipe))
        except OSError as error:
            to_do = trouble.advice(error, path)
            raise UserError(
                f"Cannot make the run folder {path}: {error.filename or path}: "
                f"{trouble.reason(error)}.{to_do and f' {to_do}.'}"
            ) from error

    @classmethod
    def open(cls, path: Path, writing: bool = False) -> Self:
        """The run in `path`. With `writing`, takes the lock, clears what a kill left, and puts back
        from the checkpoints what is damaged of the small files; a warning says so."""
        opening.check_run(path)
        if not writing:
            opening.check_start(path)
            return cls(path, None)
        try:
            return cls._locked(path, lambda: opening.clear(path))
        except OSError as error:
            raise UserError(
                f"Cannot write in {path}: {error.filename or path}: {trouble.reason(error)}."
            ) from error

    @classmethod
    def _locked(cls, path: Path, prepare: Callable[[], None]) -> Self:
        """The run in `path` for its only writer, who prepares it first."""
        lock = Lock(path)
        try:
            prepare()
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

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
        if isinstance(error, UserError):
            error.resumable = self._restored
        if error is not None and self._begun:
            self.note_stop(in_a_sentence(error))
        self.close()

    @contextmanager
    def _writing(self, name: str, needed: int = 0) -> Iterator[Path]:
        """Around what writes the file or folder `name`, of `needed` bytes: where the disk does not
        take it, `RunFailed` says what is intact and what to do."""
        assert self._lock, "the run is open for reading"
        path = self.path / name
        try:
            yield path
        except OSError as error:
            kept = self.checkpoints.what_is_kept()
            raise RunFailed(trouble.not_written(path, error, kept, needed)) from error

    def _write(self, name: str, content: dict[str, Any]) -> None:
        text = json_bytes(content)
        with self._writing(name, len(text)) as path:
            write_atomic(path, text)

    # -- why it stopped --------------------------------------------------------------------

    def note_stop(self, why: str) -> None:
        """Say in stopped.json why the run stops."""
        if self._lock:
            note_stop(self.path, why)

    def forget_stop(self) -> None:
        """The run goes on: what stopped it before is over. From here on an error stops it, which
        leaving the `with` notes; before, one has only refused to let it go on."""
        self._begun = True
        with self._writing(STOPPED) as path:
            path.unlink(missing_ok=True)

    # -- recipe, choices, rows, figures ----------------------------------------------------

    def recipe(self) -> Recipe:
        """The recipe that the run was started with."""
        return from_dict(Recipe, read_yaml(self.path / RECIPE))

    def choices(self) -> dict[str, Any]:
        """What was decided by measurement (threads, compile or not); empty at first."""
        try:
            return records.read_choices(self.path / CHOICES)
        except UserError as error:
            raise with_advice(self.path, CHOICES, error) from error

    def save_choices(self, choices: dict[str, Any]) -> None:
        """Replace the stored choices."""
        self._write(CHOICES, choices)
        self._choices = dict(choices)

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl; NaN and infinity raise `ValueError`."""
        with self._writing(METRICS) as path:
            append_row(path, row)

    def log_timing(self, row: dict[str, Any]) -> None:
        """Append one row to timing.jsonl, which is kept apart because no two runs agree on it."""
        with self._writing(TIMING) as path:
            append_row(path, row)

    def log_quarantine(self, row: dict[str, Any]) -> None:
        """Append one row about an unreadable image to quarantine.jsonl."""
        with self._writing(QUARANTINE) as path:
            append_row(path, row)

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a line that is being written is left for later. One that
        cannot be a row of ours is a `UserError`, for checkpoints depend on all of them."""
        return records.read_metrics(self.path / METRICS)

    def timings(self) -> list[dict[str, Any]]:
        """Rows of timing.jsonl; a warning says which are damaged and passed over."""
        return self._usable(records.read_timings(self.path / TIMING))

    def quarantine(self) -> list[dict[str, Any]]:
        """Rows of quarantine.jsonl, which resuming does not cut back; a warning says which are
        damaged and passed over."""
        return self._usable(records.read_quarantine(self.path / QUARANTINE))

    def saved_step(self) -> int | None:
        """The step of the newest checkpoint that the run kept, whatever became of it since; None
        where it kept none."""
        return records.saved_step(self.path / TIMING)

    def _usable(self, found: tuple[list[dict[str, Any]], str]) -> list[dict[str, Any]]:
        """Rows, after saying once what there is to say of the others."""
        rows, said = found
        if said and said not in self._said:
            warn(said)
            self._said.add(said)
        return rows

    def save_evaluation(self, name: str, content: dict[str, Any]) -> None:
        """Replace evaluation.json by `content`, measured on the split called `name`."""
        self._write(EVALUATION, {"split": name} | content)

    def evaluation(self) -> dict[str, Any] | None:
        """What was measured at the end of the run, or None before that."""
        path = self.path / EVALUATION
        return read_json(path) if path.exists() else None

    # -- checkpoints -----------------------------------------------------------------------

    def save_checkpoint(
        self,
        step: int,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        keep: int,
        reach: int = 0,
        put: Put | None = None,
    ) -> Path:
        """Put a checkpoint of `step` on disk, then remove all but the `keep` newest sound ones, the
        one with the highest `validation` in its state (top-1 as a share, or None), and one that is
        `reach` steps older, see `Checkpoints.save`.

        `state` is JSON and gets `step`; `validation`, what was logged of this step;
        `metrics_bytes` and `metrics_sha256`, of metrics.jsonl now; and a copy of the `choices`. A
        sound checkpoint of the same step and state is left as it is; any other of that step gives
        its name to the new one. `put` writes the tensors as shards (`Checkpoints.write`).
        """
        for name in (TIMING, QUARANTINE):
            with self._writing(name) as path:
                if path.exists():
                    sync(path)
        with self._writing(METRICS) as path:
            beside = {"step": step} | rows_now(path) | {"choices": self._choices}
        rows = [row for row in self.metrics() if row["step"] == step]
        measured = {"validation": max(top1_of(rows, "validation"), default=None)}
        with self._saving(step, tensors):
            return self.checkpoints.save(step, tensors, measured | state | beside, keep, reach, put)

    @contextmanager
    def _saving(self, step: int, tensors: dict[str, Tensor]) -> Iterator[None]:
        name = self.checkpoints.at(step).relative_to(self.path).as_posix()
        with self._writing(name, sum(tensor.nbytes for tensor in tensors.values())):
            yield

    def newest_checkpoint(
        self, before: float = math.inf
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the newest checkpoint, of a step below `before`, that passes every
        check; None without any.

        One that is damaged, or that was saved with other rows than metrics.jsonl has, is named on
        stderr and passed over; if all are, that is a `UserError`. Where metrics.jsonl was taken
        away, the run goes on without its earlier rows, and the checkpoint is saved anew so.
        """
        path = self.path / METRICS
        found = newest_with_rows(self.checkpoints, path, before)
        if found is None or not are_gone(path, found[1]):
            return found
        tensors, state = found
        step = state["step"]
        warn(f"{path} is absent: the run goes on from step {step:,} without its earlier rows.")
        if self._lock:
            state |= NO_ROWS
            with self._saving(step, tensors):
                self.checkpoints.write(step, tensors, state)
        return tensors, state

    def take_away(self, first: int) -> None:
        """Remove the checkpoints of step `first` and later."""
        self.checkpoints.take_away(first)

    def oldest_checkpoint(self) -> int | None:
        """The step of the oldest checkpoint that passes every check; None without any."""
        return oldest_with_rows(self.checkpoints, self.path / METRICS)

    def cut_metrics(self, state: dict[str, Any] | None) -> None:
        """Cut metrics.jsonl back to what it was at a checkpoint; None: before the first one."""
        with self._writing(METRICS) as path:
            cut_back(path, int(state["metrics_bytes"]) if state else 0)
        self._restored = True

    # -- the result ------------------------------------------------------------------------

    def save_model(self, model: MlpMixer, preprocess: Preprocess, about: dict[str, Any]) -> Path:
        """Write `model/`, which makes the run "finished"; a former one is replaced."""
        size = sum(parameter.nbytes for parameter in model.parameters())
        with self._writing(MODEL, size) as path:
            save_model(path, model, preprocess, about, replace=True, vouched=vouched(self.path))
        return path

    def damaged_results(self) -> list[str]:
        """What is wrong with the model and the figures of a finished run, a sentence each."""
        return damaged_results(self.path)

    def state(self) -> str:
        """ "running" while a process writes in it, else "finished" (has a model) or "stopped"."""
        return opening.state_of(self.path)

    def is_finished(self) -> bool:
        """Whether the run has come to its end and kept its model."""
        return opening.is_finished(self.path)


def top1_of(rows: list[dict[str, Any]], split: str) -> list[float]:
    """The accuracies of a split among the rows of metrics.jsonl, in their order."""
    return [row["top1"] for row in rows if row["split"] == split and "top1" in row]
