"""`mixer bench inference`: images a second of our engine beside timm's model in every runtime.

All contenders have the same weights. What computes in float32, in bfloat16 and in 8 bits is
compared with its own kind: batch by batch those of one kind run in turns, together with the
machine's own ceilings, the model's matrix products and nothing else. The share of a ceiling says
what is left to win.

Letters: B batch, I image channels, H W image height and width.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.benchmark.answers import signal_of, wrong
from mixerkit.benchmark.ceilings import Ceiling, ceilings, memory_bandwidth, rates
from mixerkit.benchmark.contenders import Contender, Contenders
from mixerkit.benchmark.peer_settings import Kind
from mixerkit.benchmark.turns import (
    LEAST_CALLS,
    TURN,
    Rounds,
    affordable,
    all_calls,
    in_turns,
    percentiles,
    times_as_fast,
)
from mixerkit.benchmark.workload import Say
from mixerkit.checkpoint.load import load
from mixerkit.errors import RunFailed, UserError
from mixerkit.inference.exported import normalised
from mixerkit.inference.runtimes import Run
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.other_programs import OtherPrograms
from mixerkit.results import write_results
from mixerkit.spec.preprocess import plain_preprocess

BATCHES, SMALL_BATCHES, QUICK_BATCHES = (1, 8, 32), (1, 32, 256), (1, 4)
SMALL = 10**9
"""Multiply-adds of a model, below which preparing images is no small part of the time."""
QUICK_ROUNDS = 3
FEWEST_ROUNDS, ROUNDS, MOST_ROUNDS = 3, 7, 41
SECONDS, LONGEST = 30.0, 300.0
"""Of one batch size and kind, about: as many rounds as fit, and for `ROUNDS` of them longer."""
REFERENCE = 8
"""Images at least whose outputs say how much outputs differ."""
SEED = 0
ALONE, PREPARED = "model alone", "with preprocessing"
"""What is timed: from images as the model takes them, or from 8-bit pixels."""

Key = tuple[str, str]
"""A contender, and what is timed."""
Seconds = Mapping[Key, Rounds]


def study(out: Path, say: Say, quick: bool, model: str) -> list[dict[str, Any]]:
    """A row for each contender, batch size and input, written to `out`. `RunFailed`: one of them
    gives wrong outputs, and the others' rows are written; or nobody can be measured."""
    measured, others = prepared(model), OtherPrograms()
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    batches = batches_of(measured, quick)
    with tempfile.TemporaryDirectory() as temporary:
        contenders = Contenders(measured, Path(temporary), say, quick)
        for batch in batches:
            given = _given(measured, batch)
            for kind in contenders.kinds():
                say(f"batch {batch}, {kind}: the best setting of each, then all in turns …")
                own, machine = _batch(measured, contenders, given, kind, quick)
                rows, found = rows + own, found + machine
                if own:
                    say(_lines(own))
            if not contenders.kinds():
                raise RunFailed(f"Nobody is left to measure. {_told(contenders.left_out)}")
        say(f"each in processes of its own, {batches[1]} images:")
        config = measured.config
        alone = contenders.alone((batches[1], config.in_channels, *config.image_hw))
    write_results(
        out,
        name="inference",
        command=f"mixer bench inference --model {model}" + (" --quick" if quick else ""),
        settings={
            "model": model,
            "seed": SEED,
            "macs": cost(measured.config).macs,
            "parameters": cost(measured.config).parameters,
            "threads": torch.get_num_threads(),
            "left_out": contenders.left_out,
            "other_programs": others.share(),
            "ceilings": found,
            "memory_bytes_per_second": memory_bandwidth(),
            "alone": {"images": batches[1], "rows": alone},
        },
        rows=rows,
    )
    if contenders.wrong:
        raise RunFailed(f"{_told(contenders.wrong)} What the others do is in {out}.")
    return rows


def _told(reasons: Mapping[str, str]) -> str:
    return " ".join(f"{name}: {why}." for name, why in reasons.items())


def prepared(name: str) -> MlpMixer:
    """The model, the same every time, with a head that is not zero: outputs are compared."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = load(name).eval()
        if not isinstance(model.head, nn.Linear):
            raise UserError(f"{name} has no head: give a model with classes.")
        if not model.head.weight.any():
            nn.init.normal_(model.head.weight, std=0.02)
    model.preprocess = model.preprocess or plain_preprocess(model.config)
    return model


def is_small(model: MlpMixer) -> bool:
    """Whether preparing its images is measured too."""
    return cost(model.config).macs < SMALL


def batches_of(model: MlpMixer, quick: bool) -> tuple[int, ...]:
    """Which batch sizes are measured."""
    return QUICK_BATCHES if quick else SMALL_BATCHES if is_small(model) else BATCHES


# -- one batch size ---------------------------------------------------------------------------


class Kept:
    """A call of a contender that keeps what it gave last."""

    def __init__(self, run: Run, images: np.ndarray) -> None:
        self.run, self.images, self.result = run, images, np.empty(0)

    def __call__(self) -> None:
        self.result = self.run(self.images)


@dataclass(frozen=True)
class Given:
    """A batch of images [B, I, H, W] as decoders give them, and as the model takes them; `wanted`:
    its outputs for them, and for more if they are few."""

    pixels: np.ndarray
    images: np.ndarray
    wanted: np.ndarray


def _given(model: MlpMixer, batch: int) -> Given:
    """Noise, the same every time."""
    assert model.preprocess
    shape = (max(batch, REFERENCE), model.config.in_channels, *model.config.image_hw)
    pixels = np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)
    images = normalised(pixels, model.preprocess)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images)).numpy()
    return Given(pixels[:batch], images[:batch], wanted)


def _batch(
    model: MlpMixer, contenders: Contenders, given: Given, kind: Kind, quick: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of all contenders of that kind and of all ceilings, on these images, in turns. What
    turns out to give other outputs than the model is dismissed."""
    batch, wanted = len(given.images), given.wanted
    ready = contenders.at(given.pixels, kind)
    calls = {(one.name, ALONE): Kept(one.run, given.images) for one in ready}
    if is_small(model):
        calls |= {(one.name, PREPARED): Kept(one.from_pixels, given.pixels) for one in ready}
    products = ceilings(model.config, kind, [batch, *(one.slice for one in ready)])
    rounds = QUICK_ROUNDS if quick else _rounds(ready, is_small(model), len(products))
    seconds = in_turns({**calls, **products}, rounds)
    found = rates(model.config, {one: seconds[one] for one in products})
    ready = _right(contenders, ready, calls, wanted)
    own: Seconds = {key: seconds[key] for key in calls}
    rows = [
        _row(one, timed, batch, own, ready)
        | _share(model, batch / median(all_calls(own[one.name, timed])), found)
        | {"largest_difference": _difference(calls[one.name, timed].result, wanted[:batch])}
        for timed in dict.fromkeys(timed for _, timed in calls)
        for one in ready
    ]
    return rows, [{"batch": batch} | one.row(rate) for one, rate in found.items()]


def _right(
    contenders: Contenders,
    ready: Sequence[Contender],
    calls: Mapping[Key, Kept],
    wanted: np.ndarray,
) -> list[Contender]:
    """Those whose calls gave what the model gives for the first images; the others are dismissed.
    `wanted`: the model's outputs, for several images in any case."""
    signal = signal_of(wanted)
    faults: dict[str, str] = {}
    for one in ready:
        for (name, _), call in calls.items():
            if name == one.name:
                why = wrong(one.kind, call.result, wanted[: len(call.images)], signal)
                faults |= {name: f"{why} for {len(call.images)} images"} if why else {}
    for name, why in faults.items():
        contenders.dismiss(name, why)
    return [one for one in ready if one.name not in faults]


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max())


def _rounds(ready: Sequence[Contender], small: bool, products: int) -> int:
    """As many as fit into `SECONDS`, and `ROUNDS` if they fit into `LONGEST`."""
    inputs = 2 if small else 1
    estimates = [one.seconds for one in ready] * inputs + [TURN] * products
    least = affordable(estimates, LONGEST, FEWEST_ROUNDS, ROUNDS)
    return affordable(estimates, SECONDS, least, MOST_ROUNDS)


def _row(
    one: Contender, timed: str, batch: int, seconds: Seconds, ready: Sequence[Contender]
) -> dict[str, Any]:
    """What was measured of a contender. Its best peer is the fastest of those that are `ready`, on
    the same input; it is compared by rounds, with their quartiles."""
    own = seconds[one.name, timed]
    single = all_calls(own)
    peers = [other.name for other in ready if other.name.startswith("timm")]
    best = min(peers, key=lambda name: median(all_calls(seconds[name, timed])), default=None)
    beside = times_as_fast(own, seconds[best, timed]) if best else None
    return {
        "contender": one.name,
        "kind": one.kind,
        "input": timed,
        "batch": batch,
        "setting": one.setting,
        "images_per_second": batch / median(single),
        **{f"milliseconds_{p}": s and 1000 * s for p, s in percentiles(single).items()},
        "calls": len(single),
        "rounds": len(own),
        "best_peer": best,
        "over_best_peer": beside and beside.speedup,
        "over_best_peer_quartiles": beside and [beside.low, beside.high],
    }


def _share(
    model: MlpMixer, images_per_second: float, found: Mapping[Ceiling, float]
) -> dict[str, Any]:
    """The operations a second that a contender comes to, as a share of the best that was measured
    of bare products."""
    ceiling = max(found, key=found.__getitem__)
    rate = 2 * cost(model.config).macs * images_per_second
    return {"share_of_ceiling": rate / found[ceiling], "ceiling": str(ceiling)}


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was found of one batch size and kind."""
    lines = []
    for timed in dict.fromkeys(row["input"] for row in rows):
        lines.append(f"{timed}, {rows[0]['rounds']} rounds")
        lines += [_line(row) for row in rows if row["input"] == timed]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    beside = ""
    if row["best_peer"]:
        low, high = row["over_best_peer_quartiles"]
        beside = f"{row['over_best_peer']:.2f}× ({low:.2f}–{high:.2f})"
    calls = {f"p{percent}": row[f"milliseconds_{percent}"] for percent in LEAST_CALLS}
    told = ", ".join(f"{name} {one:.2f}" for name, one in calls.items() if one is not None)
    return (
        f"  {row['contender']:42} {row['images_per_second']:10,.1f} images/s {beside:18}"
        f"  {row['share_of_ceiling']:4.0%} of the {row['kind']} ceiling; {told} ms; "
        f"{row['setting']}"
    )
