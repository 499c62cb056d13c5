"""The checkpoints of a run: complete or absent, verified when read, never overwritten."""

import errno
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixerkit.checkpoint.files import (
    atomic_folder,
    discard,
    json_bytes,
    read_json,
    sync,
    verify_folder,
)
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
        self._sound: set[int] = set()  # steps that this process wrote or verified

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first; not verified. Other names are none of ours."""
        folders = [path for path in self.folder.glob("step-*") if path.is_dir()]
        named = [(path, re.fullmatch(r"step-(\d+)", path.name)) for path in folders]
        found = [(path, int(match[1])) for path, match in named if match]
        return sorted(step for path, step in found if path == self.at(step))

    def at(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or would be."""
        return self.folder / f"step-{step:08d}"

    # -- writing ---------------------------------------------------------------------------

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
        """Put a checkpoint on disk, then remove all but the `keep` newest sound ones.

        A sound checkpoint of the same step is left as it is; a damaged one is replaced. Raises
        `RunFailed` when it cannot be written; those before it are untouched.
        """
        if keep < KEEP_AT_LEAST:
            raise UserError(f"At least {KEEP_AT_LEAST} checkpoints are kept, found keep={keep}.")
        if self.at(step).exists() and self._is_sound(step):
            return self.at(step)
        try:
            self._write(step, tensors, state)
        except OSError as error:
            raise RunFailed(self._not_saved(step, tensors, error)) from error
        self._sound.add(step)
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

    def _not_saved(self, step: int, tensors: dict[str, Tensor], error: OSError) -> str:
        kept = self.steps()
        before = f"The one of step {kept[-1]} is intact." if kept else "None was saved before."
        text = f"The checkpoint of step {step} could not be written ({error}). {before}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            text += f" Free at least {-(-needed // 2**20)} MiB on the disk of {self.folder}."
        return text

    def _prune(self, keep: int) -> None:
        """Take away what is older than the newest sound one and not among the `keep` newest."""
        sound = [step for step in reversed(self.steps()) if self._is_sound(step)]
        if len(sound) < keep:
            return
        for step in self.steps():
            if step < sound[0] and step not in sound[:keep]:
                discard(self.at(step))

    # -- reading ---------------------------------------------------------------------------

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the newest sound checkpoint, or None when there is none at all.

        Each damaged one is named on stderr and the one before it is tried. When none is sound,
        that is a `UserError`: never a silent start from nothing.
        """
        problems: list[str] = []
        remaining = self.steps()
        while remaining:
            step = remaining.pop()
            try:
                self._verify(step)
                found = read_tensors(self.at(step) / TENSORS), read_json(self.at(step) / STATE)
                self._sound.add(step)
                return found
            except UserError as error:
                self._sound.discard(step)
                if not self.at(step).exists():  # the run's writer pruned it meanwhile
                    problems, remaining = [], self.steps()
                    continue
                problems.append(str(error))
                print(f"warning: {error} Trying the checkpoint before.", file=sys.stderr)
        if problems:
            lines = "\n  ".join(problems)
            raise UserError(f"No checkpoint in {self.folder} can be used:\n  {lines}")
        return None

    def _verify(self, step: int) -> None:
        about = verify_folder(self.at(step), kind="checkpoint", must_list=(TENSORS, STATE))
        if about.get("step") != step:
            raise UserError(f"{self.at(step)} is not the checkpoint of step {step}: it was moved.")
        if about.get("recipe") != self.recipe:
            raise UserError(f"{self.at(step)} was made by another recipe than this run's.")

    def _is_sound(self, step: int) -> bool:
        try:
            if step not in self._sound:
                self._verify(step)
        except UserError:
            return False
        self._sound.add(step)
        return True


def environment() -> dict[str, Any]:
    """What the last bits of a computation depend on besides the recipe."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }
