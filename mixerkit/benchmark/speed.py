"""`mixer bench speed`: our Mixer against timm's of the same shape and weights, in one process.

Each case (model, batch, forward or training step) times both, eager and compiled, in turns,
together with a second run of our eager model: its distance from the first is the noise of the
measurement. "best" compares each side's faster form.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixerkit.benchmark.measure import matrix_products
from mixerkit.benchmark.peers import copy_to_timm
from mixerkit.benchmark.workload import MODES, Say, Workload, models
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.timer import Call, compare, interleave

CASES = (("demo", (1, 8, 32, 128)), ("S/16", (1, 8, 32)), ("B/16", (1, 8, 32)))
QUICK_CASES = (("N/7", (2,)),)
FORMS = ("eager", "compiled")

ROUNDS = 3, 41
CASE_SECONDS = 20.0
ASSUMED_RATE = 100e9

Contenders = dict[str, nn.Module]
"""By side and form, such as "ours eager"."""


def contenders(model: str, forms: tuple[str, ...]) -> Contenders:
    """Our model and timm's with equal weights; the compiled forms share them."""
    ours = MlpMixer(models()[model])
    assert isinstance(ours.head, nn.Linear)
    nn.init.normal_(ours.head.weight, std=0.02)  # a head of zeros stops all gradients
    sides: Contenders = {"ours eager": ours, "timm eager": copy_to_timm(ours)}
    if "compiled" in forms:
        # Compiled as a user would: PyTorch makes one graph for batch 1 and one for the others.
        torch.compiler.reset()
        sides |= {
            name.replace("eager", "compiled"): torch.compile(module)  # type: ignore[misc]
            for name, module in sides.items()
        }
    return sides


def measure(work: Workload, sides: Contenders, rounds: int) -> list[dict[str, Any]]:
    """The rows of one case: eager, compiled where `sides` has it, and best."""
    calls = {name: work.call(module) for name, module in sides.items()}
    first = {name: _seconds(call) for name, call in calls.items()}
    peaks = {name: work.peak_memory(module) for name, module in sides.items()}
    products, operations = matrix_products(work.config, work.batch)
    seconds = interleave(
        {**calls, "again": calls["ours eager"], "products": products},
        rounds=rounds,
        warmup=0 if first["timm eager"] > 1 else 2,  # a call for memory has warmed each up
    )
    again = compare(seconds, "ours eager")["again"].speedup
    fields = {
        "spread": abs(again - 1),
        "matrix_rate": operations / compare(seconds, "products")["products"].seconds,
        "rounds": rounds,
    }
    rows = []
    for form, ours, timm in _pairs(seconds):
        found = compare(seconds, timm)
        rows.append(
            {
                **work.describe(),
                "form": form,
                "ours_seconds": found[ours].seconds,
                "timm_seconds": found[timm].seconds,
                "speedup": found[ours].speedup,
                "speedup_quartiles": [found[ours].low, found[ours].high],
                "ours_peak_bytes": peaks[ours],
                "timm_peak_bytes": peaks[timm],
                "ours_first_call_seconds": first[ours],
                "timm_first_call_seconds": first[timm],
                **fields,
            }
        )
    return rows


def _pairs(seconds: dict[str, list[float]]) -> list[tuple[str, str, str]]:
    """(form, ours, timm) for every form that was timed, then each side's fastest."""
    pairs = [(form, f"ours {form}", f"timm {form}") for form in FORMS]
    timed = [pair for pair in pairs if pair[1] in seconds]
    middle = {name: found.seconds for name, found in compare(seconds, "ours eager").items()}
    ours = min((ours for _, ours, _ in timed), key=middle.__getitem__)
    timm = min((timm for _, _, timm in timed), key=middle.__getitem__)
    return [*timed, ("best", ours, timm)]


def rounds_for(work: Workload) -> int:
    """As many rounds as fit into `CASE_SECONDS`, by closed form, within `ROUNDS`."""
    passes = 3 if work.mode == "training" else 1  # a backward pass is two forward passes
    estimate = 2 * cost(work.config).macs * work.batch * passes / ASSUMED_RATE
    least, most = ROUNDS
    return max(least, min(most, int(CASE_SECONDS / (5 * estimate))))


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """The whole table, written to `out`; `quick` is one small eager case in three rounds."""
    forms = FORMS[:1] if quick else FORMS
    rows = []
    for model, batches in QUICK_CASES if quick else CASES:
        sides = contenders(model, forms)
        for mode in MODES:
            for batch in batches:
                work = Workload(model, batch, mode)
                found = measure(work, sides, ROUNDS[0] if quick else rounds_for(work))
                rows += found
                for row in found:
                    say(_sentence(row))
    write_results(
        out,
        name="speed",
        command="mixer bench speed" + (" --quick" if quick else ""),
        settings={
            "threads": torch.get_num_threads(),
            "precision": "float32",
            "gelu": "erf, timm's own",
            "training": "forward, cross-entropy, backward; no optimiser",
            "speedup": "timm's seconds over ours, median over the rounds",
            "spread": "distance from 1 of that ratio for two runs of our own eager model",
            "peak": "growth of the process in one call",
            "matrix_rate": "floating-point operations a second of one block's bare products",
        },
        rows=rows,
    )
    return rows


def _sentence(row: dict[str, Any]) -> str:
    peaks = [
        "?" if row[key] is None else f"{row[key] / 2**20:.1f}"
        for key in ("ours_peak_bytes", "timm_peak_bytes")
    ]
    return (
        f"{row['model']}, batch {row['batch']}, {row['mode']}, {row['form']}: "
        f"{row['ours_seconds'] * 1e3:.2f} ms, timm {row['timm_seconds'] * 1e3:.2f} ms: "
        f"{row['speedup']:.2f}× (± {row['spread']:.2f}), {' against '.join(peaks)} MiB"
    )
