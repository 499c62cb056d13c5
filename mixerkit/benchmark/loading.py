"""`mixer bench loading`: B/16 from the authors' .npz to a usable model, ours against timm's.

Each trial is a fresh process: seconds from the imports done to the model ready, and how much the
process's peak memory grew. timm cannot read the authors' layout, so it reads the same weights
as its own safetensors; so do we, in a row of its own.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mixerkit.benchmark.measure import in_fresh_process
from mixerkit.checkpoint.convert import write_layout
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.mixer import variant

Say = Callable[[str], None]

TRIALS = 7
TRIAL = """
import json, time, torch
from mixerkit.benchmark.measure import peak_memory
{imports}
kept = []
def once():
    start = time.perf_counter()
    {load}
    kept.extend([time.perf_counter() - start, sum(p.numel() for p in model.parameters())])
grown = peak_memory(once)
print(json.dumps([kept[0], grown, kept[1]]))
"""
CONTENDERS = {
    "mixerkit, the authors' .npz": (
        "from mixerkit.checkpoint.load import load",
        "model = load('{folder}/b16.npz')",
    ),
    "mixerkit, timm's safetensors": (
        "from mixerkit.checkpoint.load import load",
        "model = load('{folder}/b16.safetensors')",
    ),
    "timm, its safetensors": (
        "import timm; import timm.models.mlp_mixer",
        "model = timm.create_model('{timm}', checkpoint_path='{folder}/b16.safetensors').eval()",
    ),
}
"""Name → what is imported before the clock starts, and what is timed."""


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Time and memory of each contender in interleaved fresh processes, written to `out`."""
    label, trials = ("S/32", 1) if quick else ("B/16", TRIALS)
    with tempfile.TemporaryDirectory() as folder:
        sizes = _write_files(Path(folder), label)
        found: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
        for _ in range(trials):
            for name, (imports, load) in CONTENDERS.items():
                timm = f"mixer_{label.replace('/', '').lower()}_224"
                code = TRIAL.format(imports=imports, load=load.format(folder=folder, timm=timm))
                found[name].append([float(value) for value in in_fresh_process(code)])
    rows = [_row(name, trials, sizes) for name, trials in found.items()]
    peer = rows[-1]
    for row in rows:
        row["speedup_over_timm"] = peer["seconds"] / row["seconds"]
        say(
            f"{row['contender']:30} {row['seconds']:.2f} s, peak memory grows by "
            f"{row['growth_over_file']:.2f} × the file ({row['speedup_over_timm']:.2f}× timm)"
        )
    write_results(
        out,
        name="loading",
        command="mixer bench loading" + (" --quick" if quick else ""),
        settings={"model": label, "trials": trials if quick else TRIALS, "file_bytes": sizes},
        rows=rows,
    )
    return rows


def _write_files(folder: Path, label: str) -> dict[str, int]:
    """The same random weights in both layouts; the files' sizes."""
    model = MlpMixer(variant(label))
    torch.nn.init.normal_(model.get_parameter("head.weight"), std=0.02)
    write_layout(folder / "b16.npz", model, "google")
    write_layout(folder / "b16.safetensors", model, "timm")
    return {path.suffix: path.stat().st_size for path in folder.iterdir()}


def _row(name: str, trials: list[list[float]], sizes: dict[str, int]) -> dict[str, Any]:
    size = sizes[".npz" if ".npz" in name else ".safetensors"]
    growth = [trial[1] for trial in trials]
    return {
        "contender": name,
        "seconds": median(trial[0] for trial in trials),
        "all_seconds": [round(trial[0], 3) for trial in trials],
        "peak_growth_bytes": median(growth),
        "growth_over_file": median(growth) / size,
        "parameters": int(trials[0][2]),
    }
