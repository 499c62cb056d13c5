"""Seconds of training until a held-out accuracy is reached: our recipe against timm's Mixer.

The peer has the same shape and is trained by the same loop on the same batches, with AdamW at
the best learning rate of `RATES`. So is our own model, to tell what is due to the optimiser.
Evaluation does not count as training time.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from mixerkit.benchmark.peers import timm_mixer
from mixerkit.checkpoint.run import RunFolder
from mixerkit.results import write_results
from mixerkit.spec.recipe import Evaluate, Recipe
from mixerkit.spec.recipes import recipe
from mixerkit.training.loop import train

TARGETS = (0.88, 0.90, 0.91)
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
EVALUATE_EVERY = "0.25 epochs"
HOLDOUT = 5000
"""Images to measure accuracy on: more than the recipe holds out, for a steadier answer."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """Something to train: a recipe, and timm's model in place of the recipe's or not."""

    name: str
    recipe: Recipe
    peer: bool = False


@dataclass(frozen=True)
class Trial:
    """One run: held-out accuracy at the end, and seconds to each target or None."""

    accuracy: float
    seconds: float
    reached: tuple[float | None, ...]


def ours(base: Recipe) -> Contender:
    """The recipe as it is."""
    return Contender("mixerkit", base)


def ours_with_adamw(base: Recipe, rate: float) -> Contender:
    """Our model under the peer's optimiser."""
    return Contender("mixerkit, AdamW", _with_adamw(base, rate))


def timms(base: Recipe, rate: float) -> Contender:
    """timm's Mixer of the same shape under AdamW."""
    return Contender("timm, AdamW", _with_adamw(base, rate), peer=True)


def _with_adamw(base: Recipe, rate: float) -> Recipe:
    optimizer = replace(base.optimizer, name="adamw", lr=rate, betas=(0.9, 0.999))
    return replace(base, optimizer=optimizer)


def try_once(contender: Contender, seed: int, targets: Iterable[float]) -> Trial:
    """Train once in a temporary run folder."""
    settings = replace(
        contender.recipe, seed=seed, evaluate=Evaluate(every=EVALUATE_EVERY, test=False)
    )
    torch.manual_seed(seed)
    model: nn.Module | None = timm_mixer(settings.model) if contender.peer else None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = train(settings, out, model=model)
        with RunFolder.open(out) as run:
            seconds = {row["step"]: row["seconds"] for row in run.timings()}
            curve = [
                (seconds[row["step"]], row["top1"])
                for row in run.metrics()
                if row["split"] == "validation"
            ]
    reached = tuple(next((s for s, top1 in curve if top1 >= t), None) for t in targets)
    return Trial(curve[-1][1], result.seconds, reached)


def measure(base: Recipe, seeds: tuple[int, ...], say: Say) -> list[dict[str, Any]]:
    """Find AdamW's best rate for timm's model and for ours on the first seed, then run all
    contenders in turn, seed by seed."""
    timm, trial = best_rate(timms, base, seeds[0], say)
    own, own_trial = best_rate(ours_with_adamw, base, seeds[0], say)
    trials = {"mixerkit": [], timm.name: [trial], own.name: [own_trial]}
    for seed in seeds:
        for contender in (ours(base), timm, own):
            if len(trials[contender.name]) <= seeds.index(seed):
                found = try_once(contender, seed, TARGETS)
                trials[contender.name].append(found)
                say(describe(contender.name, seed, found))
    rates = {each.name: each.recipe.optimizer.lr for each in (timm, own)}
    rows = [row_of(name, found, rates.get(name)) for name, found in trials.items()]
    peer = rows[1]
    for row in rows:
        for target in TARGETS:
            theirs, mine = peer[f"seconds_to_{target:.2f}"], row[f"seconds_to_{target:.2f}"]
            known = theirs is not None and mine is not None
            row[f"speedup_over_timm_{target:.2f}"] = theirs / mine if known else None
    return rows


def best_rate(
    contender: Callable[[Recipe, float], Contender], base: Recipe, seed: int, say: Say
) -> tuple[Contender, Trial]:
    """The contender at the rate of `RATES` that reaches the most targets, the last one soonest,
    and its trial."""
    tried = [contender(base, rate) for rate in RATES]
    trials = []
    for each in tried:
        trials.append(try_once(each, seed, TARGETS))
        say(f"at {each.recipe.optimizer.lr:g}: " + describe(each.name, seed, trials[-1]))
    best = max(range(len(tried)), key=lambda i: merit(trials[i]))
    return tried[best], trials[best]


def merit(trial: Trial) -> tuple[int, float, float]:
    """Larger is better: targets reached, then how soon the last of them, then accuracy."""
    times = [time for time in trial.reached if time is not None]
    return len(times), -max(times, default=0.0), trial.accuracy


def describe(name: str, seed: int, trial: Trial) -> str:
    """One line for a person."""
    times = ", ".join("–" if s is None else f"{s:.1f}" for s in trial.reached)
    targets = ", ".join(f"{target:.0%}" for target in TARGETS)
    return f"{name}, seed {seed}: held-out {trial.accuracy:.4f}, seconds to {targets}: {times}"


def row_of(name: str, trials: list[Trial], rate: float | None) -> dict[str, Any]:
    """A contender's row: medians over its seeds, and every single time."""
    row: dict[str, Any] = {"contender": name, "seeds": len(trials)}
    if rate is not None:
        row["learning_rate"] = rate
    row["held_out_accuracy_median"] = median(trial.accuracy for trial in trials)
    row["training_seconds_median"] = median(trial.seconds for trial in trials)
    for i, target in enumerate(TARGETS):
        times = [trial.reached[i] for trial in trials]
        row[f"seconds_to_{target:.2f}"] = median_or_none(times)
        row[f"all_seconds_to_{target:.2f}"] = times
    return row


def median_or_none(times: list[float | None]) -> float | None:
    """The median with "never" as infinity; None when that is the median."""
    middle = median(float("inf") if time is None else time for time in times)
    return None if middle == float("inf") else middle


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """The whole comparison, written to `out`; `quick` is one seed of half an epoch."""
    base = recipe("fashion-demo")
    base = replace(base, data=replace(base.data, holdout=HOLDOUT))
    if quick:
        base = replace(base, duration="0.5 epochs")
    seeds = SEEDS[:1] if quick else SEEDS
    rows = measure(base, seeds, say)
    write_results(
        out,
        name="time-to-accuracy",
        command="mixer bench time-to-accuracy" + (" --quick" if quick else ""),
        settings={
            "recipe": base.name,
            "duration": base.duration,
            "held_out_images": base.data.holdout,
            "targets": list(TARGETS),
            "adamw_learning_rates": list(RATES),
            "evaluate_every": EVALUATE_EVERY,
            "seeds": list(seeds),
            "threads": torch.get_num_threads(),
        },
        rows=rows,
    )
    return rows
