"""The checkpoints of a run: complete or absent, verified when read, never overwritten."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.files import atomic_folder, discard, sync
from mixerkit.checkpoint.manifest import read_manifest, verify_folder
from mixerkit.checkpoint.tensors import read_tensors, write_tensors
from mixerkit.errors import RunFailed, UserError

TENSORS, STATE = "tensors.safetensors", "state.json"
KEEP_AT_LEAST = 2


class Checkpoints:
    """`step-00001234/{tensors.safetensors, state.json, manifest.json}` below one folder.

    `recipe` is the SHA-256 of the run's recipe, which every checkpoint carries.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder, self.recipe = folder, recipe
        self._sound: dict[int, float | None] = {}
        """Steps that this process wrote or verified → accuracy on held-out images, if measured."""

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first; not verified. Other names are none of ours."""
        return [step for step in self.named() if _is_folder(self.at(step))]

    def named(self) -> list[int]:
        """Steps whose name is there, oldest first; what bears it may be a file, or a link."""
        names = [path.name for path in self.folder.glob("step-*")]
        steps = [int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name)]
        return sorted(step for step in set(steps) if self.at(step).name in names)

    def at(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or would be."""
        return self.folder / f"step-{step:08d}"

    # -- writing ---------------------------------------------------------------------------

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
        """Put a checkpoint on disk, then remove all but the `keep` newest sound ones and the best.

        The best is the sound one with the highest `validation` in its state, the earliest of
        equals. A sound checkpoint of the same step and state is left as it is; any other of that
        step gives its name to the new one when this is on disk.
        Raises `RunFailed` when it cannot be written; those before it are untouched.
        """
        if keep < KEEP_AT_LEAST:
            raise UserError(f"At least {KEEP_AT_LEAST} checkpoints are kept, found keep={keep}.")
        if os.path.lexists(self.at(step)) and self._holds(step, state):
            return self.at(step)
        try:
            self._write(step, tensors, state)
        except OSError as error:
            raise self.not_saved(step, tensors, error) from error
        self._sound[step] = held_out_accuracy(state)
        self._prune(keep)
        return self.at(step)

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        if not self.folder.exists():
            self.folder.mkdir()
            sync(self.folder.parent)
        about = {"kind": "checkpoint", "step": step, "recipe": self.recipe} | environment()
        with atomic_folder(self.at(step), about, replace=True) as temporary:
            write_tensors(temporary / TENSORS, tensors)
            (temporary / STATE).write_bytes(json_bytes(state))

    def not_saved(self, step: int, tensors: dict[str, Tensor], error: OSError) -> RunFailed:
        """What to raise when the disk takes no checkpoint: what is intact, what is needed."""
        kept = self.steps()
        before = f"The one of step {kept[-1]} is intact." if kept else "None was saved before."
        text = f"The checkpoint {self.at(step)} could not be written ({error}). {before}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            text += f" Free at least {-(-needed // 2**20)} MiB on the disk of {self.folder}."
        return RunFailed(text)

    def _prune(self, keep: int) -> None:
        """Take away what is older than the newest sound one, but the `keep` newest and the best."""
        sound = [step for step in reversed(self.steps()) if self._is_sound(step)]
        if len(sound) < keep:
            return
        kept = {*sound[:keep], best_of({step: self._sound[step] for step in sound})}
        for step in self.steps():
            if step < sound[0] and step not in kept:
                self._discard(step)

    def _discard(self, step: int) -> None:
        try:
            discard(self.at(step))
        except OSError as error:  # the new checkpoint is on disk: no reason to stop
            print(f"warning: {self.at(step)} could not be removed: {error}.", file=sys.stderr)

    # -- reading ---------------------------------------------------------------------------

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the newest sound checkpoint, or None when there is none at all.

        Each damaged one is named on stderr and the one before it is tried. When none is sound,
        that is a `UserError`: never a silent start from nothing.
        """
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder: put the run's checkpoints back.")
        problems: list[str] = []
        remaining = self.named()
        while remaining:
            step = remaining.pop()
            try:
                return self.read(step)
            except UserError as error:
                if not os.path.lexists(self.at(step)):  # the run's writer pruned it meanwhile
                    problems, remaining = [], self.named()
                    continue
                problems.append(str(error))
                print(f"warning: {error} Trying the checkpoint before.", file=sys.stderr)
        if problems:
            lines = "\n  ".join(problems)
            raise UserError(f"No checkpoint in {self.folder} can be used:\n  {lines}")
        return None

    def read(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, state) of one checkpoint; `UserError` names what is not as it was saved."""
        self._sound.pop(step, None)
        self._verify(step)
        tensors, state = read_tensors(self.at(step) / TENSORS), self._state(step)
        self._sound[step] = held_out_accuracy(state)
        return tensors, state

    def about(self, step: int) -> dict[str, Any]:
        """What the manifest of one checkpoint says about it: step, recipe, and `environment()`."""
        return dict(read_manifest(self.at(step), links=False)["about"])

    def _verify(self, step: int) -> None:
        """Plain files in a plain folder, which no change elsewhere can reach, all as saved."""
        path = self.at(step)
        if not _is_folder(path):
            raise UserError(f"{path} is not a folder, which every checkpoint is.")
        about = verify_folder(path, kind="checkpoint", must_list=(TENSORS, STATE), links=False)
        if about.get("step") != step:
            raise UserError(f"{path} is not the checkpoint of step {step}: it was moved.")
        if about.get("recipe") != self.recipe:
            raise UserError(f"{path} was made by another recipe than this run's.")

    def _state(self, step: int) -> dict[str, Any]:
        path = self.at(step) / STATE
        state = read_json(path)
        size = state.get("metrics_bytes")
        if state.get("step") != step or type(size) is not int or size < 0:
            raise UserError(
                f"{path} is no state of step {step}: it says step {state.get('step')!r:.40} and "
                f"metrics_bytes {size!r:.40}."
            )
        return state

    def _holds(self, step: int, state: dict[str, Any]) -> bool:
        """Whether a sound checkpoint of `step` has this very state."""
        return self._is_sound(step) and (self.at(step) / STATE).read_bytes() == json_bytes(state)

    def _is_sound(self, step: int) -> bool:
        try:
            if step not in self._sound:
                self._verify(step)
                self._sound[step] = held_out_accuracy(self._state(step))
        except UserError:
            return False
        return True


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def held_out_accuracy(state: dict[str, Any]) -> float | None:
    """The `validation` of a checkpoint's state: top-1 as a share, or None if not measured then."""
    accuracy = state.get("validation")
    return accuracy if type(accuracy) is float else None


def best_of(accuracies: dict[int, float | None]) -> int | None:
    """The step with the highest accuracy, the earliest of equals; None if none was measured."""
    measured = [(accuracy, -step) for step, accuracy in accuracies.items() if accuracy is not None]
    return -max(measured)[1] if measured else None


def environment() -> dict[str, Any]:
    """What the last bits of a computation depend on besides the recipe."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each part of the `environment()` that is not `now` as it was `then`.

    Where there is one, the last bits of what is computed may differ.
    """
    parts = {"torch": "PyTorch", "threads": "threads", "instruction_set": "instruction set"}
    return [
        f"{name}: {then.get(key, 'unknown')} then, {now.get(key, 'unknown')} now"
        for key, name in parts.items()
        if then.get(key) != now.get(key)
    ]
