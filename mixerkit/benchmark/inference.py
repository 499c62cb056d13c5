"""`mixer bench inference`: images a second of our engine beside timm's model in every runtime.

All contenders have the same weights and run in turns, batch by batch, together with the machine's
own ceilings: the model's matrix products and nothing else, in float32 and in 8 bits. The share of a
ceiling says what is left to win.

Letters: B batch, I image channels, H W image height and width.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.benchmark.deployed import peers, quietly
from mixerkit.benchmark.measure import int8_products, matrix_products
from mixerkit.benchmark.workload import Say
from mixerkit.checkpoint.load import load
from mixerkit.errors import UserError
from mixerkit.inference.eight_bits import Calibration, Setting
from mixerkit.inference.engine import Predictor
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.gate import unjudged
from mixerkit.inference.runtimes import Run, computes_bfloat16
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.preprocess import Preprocess
from mixerkit.timer import Call, interleave

BATCHES, QUICK_BATCHES = (1, 8, 32, 64), (1, 4)
SHIPPED_BATCHES = (1, 8, 32, 256)
ROUNDS = 3, 21
SECONDS = 40.0
"""Of one batch size, at most, where that leaves enough rounds."""
NOISE = 8
OURS = "mixerkit"
CEILINGS = ("products float32", "products int8")


def study(out: Path, say: Say, quick: bool = False, model: str = "") -> list[dict[str, Any]]:
    """A row for each contender and batch size, written to `out`."""
    name = model or ("zoo:fashion-demo" if quick else "B/16")
    measured = prepared(name)
    batches = (
        QUICK_BATCHES if quick else BATCHES if measured.config.width > 256 else SHIPPED_BATCHES
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        runs = contenders(measured, Path(temporary), say, quick)
        for batch in batches:
            rows += _batch(measured, runs, batch, quick)
            say(_line(batch, rows))
    write_results(
        out,
        name="inference",
        command=f"mixer bench inference --model {name}" + (" --quick" if quick else ""),
        settings={
            "model": name,
            "macs": cost(measured.config).macs,
            "parameters": cost(measured.config).parameters,
            "threads": torch.get_num_threads(),
            "plans": {key: str(run.plan) for key, run in runs.items() if isinstance(run, Ours)},
        },
        rows=rows,
    )
    return rows


class Ours:
    """One of our contenders, and the plan that it follows."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.plan = predictor, predictor.plan

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.predictor.outputs(images)


def prepared(name: str) -> MlpMixer:
    """The model, with a head that is not zero: outputs are compared."""
    model = load(name).eval()
    if not isinstance(model.head, nn.Linear):
        raise UserError(f"{name} has no head: give a model with classes.")
    if not model.head.weight.any():
        nn.init.normal_(model.head.weight, std=0.02)
    model.preprocess = model.preprocess or Preprocess(
        image_size=model.config.image_size, channels=model.config.in_channels
    )
    return model


def contenders(model: MlpMixer, folder: Path, say: Say, quick: bool) -> dict[str, Run]:
    """Every contender, ready; its logits are those of the model, but for rounding."""
    makers: dict[str, Callable[[], Run]] = dict(peers(model))
    if quick:
        makers = {name: makers[name] for name in ("timm eager", "timm onnxruntime")}
    makers[f"{OURS} float32"] = lambda: Ours(Predictor(model))
    if computes_bfloat16():
        makers[f"{OURS} bfloat16"] = lambda: Ours(Predictor(model, "bfloat16"))
    makers[f"{OURS} int8"] = lambda: Ours(Predictor(_int8(model, folder)))
    runs = {}
    for name, make in makers.items():
        with quietly():
            runs[name] = make()
        say(f"ready: {name}" + (f", {run.plan}" if isinstance(run := runs[name], Ours) else ""))
    return runs


def _int8(model: MlpMixer, folder: Path) -> Path:
    """An exported file in 8 bits; ranges from noise, which is as fast as from photographs."""
    assert model.preprocess
    shape = (NOISE, model.config.in_channels, *model.config.image_hw)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    calibration = Calibration(
        model.config, weights_of(model), model.preprocess, pixels, "onnxruntime"
    )
    rounded = unjudged(calibration, Setting(smooth=0.5))
    return export(model, folder / "int8.onnx", pixels, rounded=rounded, force=True).files[0]


def _batch(
    model: MlpMixer, runs: Mapping[str, Run], batch: int, quick: bool
) -> list[dict[str, Any]]:
    """All contenders and ceilings on so many images, in turns."""
    shape = (batch, model.config.in_channels, *model.config.image_hw)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    calls: dict[str, Call] = {name: partial(run, images) for name, run in runs.items()}
    (floats, operations), (ints, _) = (
        make(model.config, batch) for make in (matrix_products, int8_products)
    )
    calls |= dict(zip(CEILINGS, (floats, ints), strict=True))
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images)).numpy()
    rounds = 1 if quick else _rounds(calls)
    seconds = interleave(calls, rounds=rounds, warmup=1)
    share = model.config.depth * operations / (2 * cost(model.config).macs * batch)
    ceilings = {name: model.config.depth * median(seconds[name]) / share for name in CEILINGS}
    best = {kind: _best(seconds, kind) for kind in ("float32", "int8")}
    return [
        {
            "contender": name,
            "batch": batch,
            "images_per_second": batch / median(own),
            "milliseconds": 1000 * median(own),
            "milliseconds_95": 1000 * _percentile(own, 95),
            "over_best_peer": _ratio(best[_kind(name)], own),
            "share_of_float32_products": ceilings[CEILINGS[0]] / median(own),
            "share_of_int8_products": ceilings[CEILINGS[1]] / median(own),
            "rounds": rounds,
            "largest_difference": float(np.abs(run(images) - wanted).max()),
        }
        for name, run in runs.items()
        for own in [seconds[name]]
    ]


def _kind(name: str) -> str:
    return "int8" if name.endswith("int8") else "float32"


def _best(seconds: Mapping[str, list[float]], kind: str) -> list[float] | None:
    """The fastest of the peers whose products are computed so."""
    own = [s for name, s in seconds.items() if name.startswith("timm") and _kind(name) == kind]
    return min(own, key=median) if own else None


def _ratio(theirs: list[float] | None, ours: list[float]) -> float | None:
    if theirs is None:
        return None
    return median(their / own for their, own in zip(theirs, ours, strict=True))


def _percentile(seconds: list[float], percent: int) -> float:
    if len(seconds) == 1:
        return seconds[0]
    return quantiles(seconds, n=100, method="inclusive")[percent - 1]


def _rounds(calls: Mapping[str, Call]) -> int:
    """As many as fit into `SECONDS`."""
    from time import perf_counter

    start = perf_counter()
    for call in calls.values():
        call()
    first = perf_counter() - start  # compiles too
    start = perf_counter()
    for call in calls.values():
        call()
    once = min(first, perf_counter() - start)
    least, most = ROUNDS
    return max(least, min(most, int(SECONDS / max(once, 1e-3))))


def _line(batch: int, rows: list[dict[str, Any]]) -> str:
    """What was found of one batch size."""
    parts = [
        f"  {row['contender']:30} {row['images_per_second']:10,.1f} images/s"
        + (f"  {row['over_best_peer']:5.2f}×" if row["over_best_peer"] else "")
        + f"  {row['share_of_float32_products']:6.1%} of float32 products"
        for row in rows
        if row["batch"] == batch
    ]
    return "\n".join([f"batch {batch}", *parts])
