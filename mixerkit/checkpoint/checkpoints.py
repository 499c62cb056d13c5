"""The checkpoints of a run: complete or absent, verified when read, never overwritten."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.environment import environment
from mixerkit.checkpoint.files import atomic_folder, discard, sync
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    OtherFormat,
    read_manifest,
    verify_folder,
    written_by_newer,
)
from mixerkit.checkpoint.step_folders import folder_of, is_folder, named_steps, steps_in
from mixerkit.checkpoint.tensors import is_shard, read_tensors, write_tensors
from mixerkit.errors import Unreadable, UserError, warn

TENSORS, STATE, RECIPE = "tensors.safetensors", "state.json", "recipe.yaml"
FORMAT = 1
"""Of what is written into a checkpoint, which says the number."""
STATE_KEYS = {"metrics_bytes": int, "metrics_sha256": str, "choices": dict}
"""What a state says besides its step, for the run's other files: how much of metrics.jsonl belongs
to the checkpoint, and a copy of choices.json."""
KEEP_AT_LEAST = 2
Put = Callable[[Path], int]
"""Writes tensors as shards into a folder, and gives how many files they are."""


class NoneUsable(UserError):
    """There are checkpoints, and none can be used: `problems` has one for each."""

    def __init__(self, folder: Path, problems: list[UserError]) -> None:
        lines = "\n  ".join(map(str, problems))
        super().__init__(f"No checkpoint in {folder} can be used:\n  {lines}")
        self.problems = problems


class Checkpoints:
    """`step-00001234/{tensors.safetensors, state.json, recipe.yaml, manifest.json}` below a folder.

    `recipe` is the SHA-256 of the run's recipe, which every checkpoint carries; `text` is the
    recipe itself, of which every one gets a copy.
    """

    def __init__(self, folder: Path, recipe: str, text: bytes = b"") -> None:
        self.folder, self.recipe, self.text = folder, recipe, text
        self._sound: dict[int, tuple[float | None, int]] = {}
        """Steps that this process wrote or verified → accuracy on held-out images, if measured, and
        how many updates the weights have seen."""

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first; not verified. Other names are none of ours."""
        return steps_in(self.folder)

    def named(self) -> list[int]:
        """Steps whose name is there, oldest first; what bears it may be a file, or a link."""
        return named_steps(self.folder)

    def _named(self, before: float) -> list[int]:
        return [step for step in self.named() if step < before]

    def at(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or would be."""
        return folder_of(self.folder, step)

    # -- writing ---------------------------------------------------------------------------

    def save(
        self,
        step: int,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        keep: int,
        reach: int = 0,
        put: Put | None = None,
    ) -> Path:
        """Put a checkpoint on disk, then remove all but the `keep` newest sound ones, the best, the
        newest that is `reach` steps older than the last, or else the oldest, and the one that will
        take its place: the oldest that is not as old yet.

        The best is the sound one with the highest `validation` in its state, the earliest of
        equals. A sound checkpoint of the same step and state is left as it is; any other of that
        step gives its name to the new one when this is on disk. `put` as of `write`.
        Raises `OSError` when it cannot be written; those before it are untouched.
        """
        if keep < KEEP_AT_LEAST:
            raise UserError(f"At least {KEEP_AT_LEAST} checkpoints are kept, found keep={keep}.")
        if not (os.path.lexists(self.at(step)) and self._holds(step, state)):
            self.write(step, tensors, state, put)
            self._prune(keep, reach)
        return self.at(step)

    def write(
        self,
        step: int,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        put: Put | None = None,
    ) -> None:
        """Put a checkpoint on disk, in the place of one of the same step, and remove no other.
        `put` writes the tensors instead, as shards in the folder that it is given."""
        if not self.folder.exists():
            self.folder.mkdir()
            sync(self.folder.parent)
        device = next((tensor.device for tensor in tensors.values()), None)
        about = {"kind": "checkpoint", "format": FORMAT, "step": step, "recipe": self.recipe}
        about |= environment(device)
        with atomic_folder(self.at(step), about, replace=True) as temporary:
            if put:
                about["shards"] = put(temporary)
            else:
                write_tensors(temporary / TENSORS, tensors)
            (temporary / STATE).write_bytes(json_bytes(state))
            (temporary / RECIPE).write_bytes(self.text)
        self._remember(step, state)

    def what_is_kept(self) -> str:
        """A sentence about the newest sound checkpoint, for a message about a run that stops."""
        sound = (step for step in reversed(self.steps()) if self._problem(step) is None)
        newest = next(sound, None)
        if newest is None:
            return "No checkpoint was saved before."
        return f"The checkpoint of step {newest:,} is intact."

    def _prune(self, keep: int, reach: int) -> None:
        """Take away what is older than the newest sound one, but what `save` keeps, and what cannot
        be read now, or by this version: that may be whole. Of the `keep` newest, those with as many
        `updates` in their state have the same weights and count as one: the newest of them."""
        problems = {step: self._problem(step) for step in reversed(self.steps())}
        sound = [step for step, problem in problems.items() if problem is None]
        newest = list({self._sound[step][1]: step for step in reversed(sound)}.values())[::-1]
        if len(newest) < keep:
            return
        old = next((step for step in sound if step <= sound[0] - reach), sound[-1])
        next_old = [step for step in sound if step > sound[0] - reach][-1:]
        best = best_of({step: self._sound[step][0] for step in sound})
        kept = {*newest[:keep], old, *next_old, best}
        for step, problem in problems.items():
            may_be_whole = isinstance(problem, Unreadable | OtherFormat)
            if step < sound[0] and step not in kept and not may_be_whole:
                discard(self.at(step))

    def take_away(self, first: int) -> None:
        """Remove the checkpoints of step `first` and later, the newest first."""
        for step in reversed(self.steps()):
            if step >= first:
                discard(self.at(step))

    # -- reading ---------------------------------------------------------------------------

    def newest(
        self,
        check: Callable[[dict[str, Any]], None] = lambda state: None,
        before: float = math.inf,
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the newest sound checkpoint of a step below `before`, or None when
        there is none at all.

        `check` raises `UserError` for a state that does not fit what lies beside the checkpoints.
        Each that is damaged or does not fit is named on stderr and the one before it is tried.
        When none is left, that is `NoneUsable`: never a silent start from nothing. One of another
        format is `OtherFormat`: to go on from an older one would be to lose it.
        """
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder: put the run's checkpoints back.")
        problems: list[UserError] = []
        remaining = self._named(before)
        while remaining:
            step = remaining.pop()
            try:
                tensors, state = self.read(step)
                check(state)
                return tensors, state
            except OtherFormat:
                raise
            except UserError as error:
                if not os.path.lexists(self.at(step)):  # the run's writer pruned it meanwhile
                    problems, remaining = [], self._named(before)
                    continue
                problems.append(error)
                warn(f"{error}{' Trying the checkpoint before.' if remaining else ''}")
        if problems:
            raise NoneUsable(self.folder, problems)
        return None

    def read(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, state) of one checkpoint; `UserError` names what is not as it was saved."""
        self._sound.pop(step, None)
        state = self.state(step)
        tensors = _read(self.at(step))
        self._remember(step, state)
        return tensors, state

    def oldest(self, check: Callable[[dict[str, Any]], None]) -> int | None:
        """The step of the oldest checkpoint that is sound now and passes `check`; None without."""
        for step in self.steps():
            try:
                check(self.state(step))
                return step
            except UserError:
                continue
        return None

    def state(self, step: int) -> dict[str, Any]:
        """The state of one checkpoint, after all of it was verified as `read` does."""
        self._verify(step)
        return self._state(step)

    def about(self, step: int) -> dict[str, Any]:
        """What the manifest of one checkpoint says about it: step, recipe, and `environment()`."""
        return dict(read_manifest(self.at(step), links=False)["about"])

    def _verify(self, step: int) -> None:
        """All as saved, under the name that it was saved with, and of this run's recipe."""
        path = self.at(step)
        about = verify_checkpoint(path)
        if about["step"] != step:
            raise UserError(f"{path} is not the checkpoint of step {step}: it was moved.")
        if about.get("recipe") != self.recipe:
            raise UserError(f"{path} was made by another recipe than this run's.")

    def _state(self, step: int) -> dict[str, Any]:
        path = self.at(step) / STATE
        state = read_json(path)
        check_state(path, step, state)
        return state

    def _holds(self, step: int, state: dict[str, Any]) -> bool:
        """Whether a sound checkpoint of `step` has this very state."""
        if self._problem(step) is not None:
            return False
        return (self.at(step) / STATE).read_bytes() == json_bytes(state)

    def _problem(self, step: int) -> UserError | None:
        """What is wrong with a checkpoint; None where it is sound."""
        try:
            if step not in self._sound:
                self._remember(step, self.state(step))
        except UserError as error:
            return error
        return None

    def _remember(self, step: int, state: dict[str, Any]) -> None:
        """That the checkpoint of `step` is sound, and what pruning must know of it."""
        self._sound[step] = held_out_accuracy(state), _updates(state)


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole, however many processes wrote it."""
    if (path / TENSORS).exists():
        return read_tensors(path / TENSORS)
    from mixerkit.checkpoint.shards import read_all

    return read_all(path)


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """What the manifest of the checkpoint in `path` says about it, after checking every file: plain
    files in a plain folder, which no change elsewhere can reach, all as saved."""
    if not is_folder(path):
        raise UserError(f"{path} is not a folder, which every checkpoint is.")
    manifest = read_manifest(path, links=False)
    check_format(path, manifest)
    shards = tuple(name for name in manifest["files"] if is_shard(name))
    expected = manifest["about"].get("shards", 0)
    if len(shards) != expected:
        raise UserError(f"{path} holds {len(shards)} shards of {expected}. Restore it from a copy.")
    names = (*(shards or (TENSORS,)), STATE, RECIPE)
    about = verify_folder(path, kind="checkpoint", must_list=names, links=False)
    if type(about.get("step")) is not int:
        raise UserError(f"{path / MANIFEST} does not say of which step the checkpoint is.")
    return about


def check_format(path: Path, manifest: dict[str, Any]) -> None:
    """Raise `OtherFormat` where another version wrote the checkpoint in another form."""
    about = manifest["about"]
    found = about.get("format")
    if about.get("kind") != "checkpoint" or found == FORMAT:
        return
    if type(found) is int and found > FORMAT:
        raise OtherFormat(written_by_newer(path, FORMAT, found))
    raise OtherFormat(
        f"{path} was written by another mixerkit: expected a checkpoint of format {FORMAT}, found "
        f"{found!r:.40}. Finish the run with the version that began it, or start a new run."
    )


def check_state(path: Path, step: int, state: dict[str, Any]) -> None:
    """Raise `UserError` unless `state`, read from `path`, is one of `step` with all its keys."""
    found: dict[str, Any] = {key: state.get(key) for key in ("step", *STATE_KEYS)}
    kinds = all(type(found[key]) is kind for key, kind in STATE_KEYS.items())
    if found["step"] != step or not kinds or found["metrics_bytes"] < 0:
        said = ", ".join(f"{key} {value!r:.40}" for key, value in found.items())
        raise UserError(f"{path} is no state of step {step}: it says {said}.")


def held_out_accuracy(state: dict[str, Any]) -> float | None:
    """The `validation` of a checkpoint's state: top-1 as a share, or None if not measured then."""
    accuracy = state.get("validation")
    return accuracy if type(accuracy) is float else None


def _updates(state: dict[str, Any]) -> int:
    """How many updates the weights have seen: as many as steps, where a state does not say."""
    updates = state.get("updates")
    return updates if type(updates) is int else int(state["step"])


def best_of(accuracies: dict[int, float | None]) -> int | None:
    """The step with the highest accuracy, the earliest of equals; None if none was measured."""
    measured = [(accuracy, -step) for step, accuracy in accuracies.items() if accuracy is not None]
    return -max(measured)[1] if measured else None
