"""Seconds of training until a held-out accuracy is reached: our recipe against timm's Mixer.

The peer has the same shape and is trained by the same loop on the same batches, with AdamW at
the best learning rate of `RATES`. So is our own model, to tell what is due to the optimiser. The
peer is also given twice the epochs, because a longer schedule may reach what a short one does
not. Evaluation does not count as training time.
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
from mixerkit.spec.recipe import Evaluate, Recipe, parse_duration
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


def for_twice_as_long(contender: Contender) -> Contender:
    """The same with twice the epochs."""
    duration = parse_duration(contender.recipe.duration)
    longer = f"{2 * duration.amount:g} {duration.unit}s"
    return replace(
        contender,
        name=f"{contender.name}, {longer}",
        recipe=replace(contender.recipe, duration=longer),
    )


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
    contenders = (ours(base), timm, own, for_twice_as_long(timm))
    trials: dict[str, list[Trial]] = {each.name: [] for each in contenders}
    trials |= {timm.name: [trial], own.name: [own_trial]}
    for seed in seeds:
        for contender in contenders:
            if len(trials[contender.name]) <= seeds.index(seed):
                found = try_once(contender, seed, TARGETS)
                trials[contender.name].append(found)
                say(describe(contender.name, seed, found))
    return table([(each, trials[each.name]) for each in contenders])


def table(runs: list[tuple[Contender, list[Trial]]]) -> list[dict[str, Any]]:
    """A row for each contender, with its speed-ups over the quickest of timm's rows."""
    rows = [row_of(contender, trials) for contender, trials in runs]
    for target in TARGETS:
        key = f"seconds_to_{label(target)}"
        theirs = [row[key] for row in rows if row["model"] == "timm" and row[key] is not None]
        for row in rows:
            known = theirs and row[key] is not None
            row[f"speedup_over_timm_{label(target)}"] = min(theirs) / row[key] if known else None
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


def row_of(contender: Contender, trials: list[Trial]) -> dict[str, Any]:
    """A contender's row: medians over its seeds, and every single time."""
    row: dict[str, Any] = {
        "contender": contender.name,
        "model": "timm" if contender.peer else "mixerkit",
        "duration": contender.recipe.duration,
        "optimizer": contender.recipe.optimizer.name,
        "learning_rate": contender.recipe.optimizer.lr,
        "seeds": len(trials),
    }
    row["held_out_accuracy_median"] = median(trial.accuracy for trial in trials)
    row["training_seconds_median"] = median(trial.seconds for trial in trials)
    for i, target in enumerate(TARGETS):
        times = [trial.reached[i] for trial in trials]
        row[f"seconds_to_{label(target)}"] = median_or_none(times)
        row[f"all_seconds_to_{label(target)}"] = times
    return row


def label(target: float) -> str:
    """0.88 → "88": how a target is written in the names of columns."""
    return f"{100 * target:.0f}"


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
