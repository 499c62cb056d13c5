"""Headers, JSON and archives changed at random, given to everything that reads foreign files (F6).

Every trial is measured: the processor time that it takes, and how far the process grows above
what it holds before, by the kernel's own high-water mark.
"""

import contextlib
import ctypes
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.load import load, load_weights, save_model
from mixerkit.checkpoint.manifest import describe_file, manifest_text
from mixerkit.checkpoint.runs import list_runs
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from tests.checkpoint import published
from tests.faults.fault import Fault, Trial
from tests.faults.fuzzed_runs import STEP, go_on_with_run, make_runs, read_run
from tests.faults.mismatches import random_model
from tests.faults.mutations import as_archive, as_bytes, as_json, as_rows, as_safetensors
from tests.faults.power import PREPROCESS, model

SECONDS, BYTES = 1.0, 64 << 20
Files = dict[str, bytes]
"""Path below a folder → content."""


@dataclass(frozen=True)
class Target:
    """What is changed, in which files, and what then reads them. `sealed` is the folder whose
    manifest vouches for the change, so that it is not refused before it is read."""

    seed: str
    file: str
    change: Callable[[bytes, Random], bytes]
    read: Callable[[Path], object]
    sealed: str | None = None


def load_into_a_model(path: Path) -> None:
    load_weights(MlpMixer(model(1).config), path)


TARGETS = (
    Target("ours", "model.safetensors", as_safetensors, load, ""),
    Target("ours", "model.safetensors", as_safetensors, load_into_a_model, ""),
    Target("ours", "config.json", as_json, load, ""),
    Target("ours", "config.json", as_json, load_into_a_model, ""),
    Target("ours", "manifest.json", as_json, load),
    Target("ours", "manifest.json", as_json, load, ""),
    Target("timm", "config.json", as_json, load),
    Target("timm", "model.safetensors", as_safetensors, load),
    Target("timm", "model.safetensors", as_safetensors, load_into_a_model),
    Target("google", "x.npz", as_archive, lambda path: load(path / "x.npz")),
    Target("google", "x.npz", as_archive, lambda path: load_into_a_model(path / "x.npz")),
    Target("torch", "x.pth", as_archive, lambda path: load(path / "x.pth")),
    Target("run", "manifest.json", as_json, read_run),
    Target("run", "choices.json", as_json, list_runs),
    Target("run", "evaluation.json", as_json, read_run),
    Target("run", "lock", as_json, read_run),
    Target("run", "metrics.jsonl", as_bytes, list_runs),
    Target("run", "quarantine.jsonl", as_rows, read_run),
    Target("run", "recipe.yaml", as_bytes, list_runs, "."),
    Target("run", f"{STEP}/manifest.json", as_json, read_run),
    Target("run", f"{STEP}/state.json", as_json, verify_run, STEP),
    Target("stopped", "choices.json", as_json, go_on_with_run),
    Target("stopped", "metrics.jsonl", as_rows, go_on_with_run),
    Target("stopped", "timing.jsonl", as_rows, go_on_with_run),
    Target("stopped", "quarantine.jsonl", as_rows, go_on_with_run),
    Target("stopped", f"{STEP}/manifest.json", as_json, go_on_with_run, STEP),
    Target("stopped", f"{STEP}/state.json", as_json, go_on_with_run, STEP),
    Target("stopped", f"{STEP}/tensors.safetensors", as_safetensors, go_on_with_run, STEP),
    Target("finished", "evaluation.json", as_json, go_on_with_run),
    Target("finished", "timing.jsonl", as_rows, go_on_with_run),
)


def seeds(folder: Path) -> dict[str, Files]:
    """Small sound files of every kind, in memory."""
    random = Random(0)
    ours, timm = folder / "ours", folder / "timm"
    save_model(ours, model(1), PREPROCESS, {"trained_on": "nothing"})
    make_runs(folder)
    timm.mkdir()
    write_as_timm(timm, random)
    shape = published.Shape(P=4, C=6, L=2, T=5, D=7, S=4, K=3, I=1)
    arrays = published.linen(shape)
    for name in ("google", "torch"):
        (folder / name).mkdir()
    np.savez(folder / "google" / "x.npz", **arrays)
    state = {name: torch.from_numpy(a) for name, a in published.oracle_weights(arrays).items()}
    torch.save({"state_dict": timms(state), "epoch": 3}, folder / "torch" / "x.pth")
    return {path.name: files_of(path) for path in folder.iterdir()}


def timms(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under timm's names."""
    from tests.faults.mismatches import TIMM

    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in TIMM:
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def write_as_timm(folder: Path, random: Random) -> None:
    from mixerkit.checkpoint.tensors import write_tensors

    state = {name: t.contiguous() for name, t in random_model(random, "erf").state_dict().items()}
    write_tensors(folder / "model.safetensors", timms(state))
    text = '{"architecture": "mixer_b16_224", "num_classes": 3, "label_names": ["a", "b", "c"], '
    text += '"pretrained_cfg": {"tag": "goog_in21k", "input_size": [3, 8, 16], "crop_pct": 0.9, '
    text += '"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}}'
    (folder / "config.json").write_text(text)


def files_of(path: Path) -> Files:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def write_all(path: Path, files: Files) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def vouch_if_readable(folder: Path) -> None:
    """A manifest that vouches for what is there, as far as it can still be read itself."""
    path = folder / "manifest.json"
    with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, OSError):
        content = read_json(path)
        about, files = content["about"], dict(content["files"])
        if not any(isinstance(entry, dict) and entry.get("size") for entry in files.values()):
            return
        for name in files:
            if (folder / name).is_file() and path.parent in (folder / name).parents:
                files[name] = describe_file(folder / name)
        path.write_bytes(manifest_text(about, files))


# -- a trial ------------------------------------------------------------------------------


def fuzz(trial: Trial) -> None:
    """One target of all, in turn, changed at random."""
    target = TARGETS[trial.number % len(TARGETS)]
    path = trial.folder / target.seed
    files = dict(trial.shared[target.seed])
    files[target.file] = target.change(files[target.file], trial.random)
    write_all(path, files)
    if target.sealed is not None:
        vouch_if_readable(path / target.sealed)
    with measured(), quiet(), contextlib.suppress(UserError):
        target.read(path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Notes and warnings are not looked at."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Raise when the block takes more processor time or memory than is allowed."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not used again unseen
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the high-water mark starts anew
    started = time.process_time()
    yield
    seconds, grown = time.process_time() - started, status_bytes("VmHWM") - before
    assert seconds <= SECONDS, f"{seconds:.1f} s"
    assert grown <= BYTES, f"{grown >> 20} MiB"


def status_bytes(field: str) -> int:
    """A figure of this process's memory as the kernel counts it."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


FAULTS = (
    Fault(
        "F6",
        "safetensors headers, JSON, .npz and .pth archives changed at random, checksums to match",
        "loaded or refused with one error, within 1 s of processor time and 64 MB",
        trials=50_000,
        short=360,
        run=fuzz,
        prepare=seeds,
        counts="files",
    ),
)
