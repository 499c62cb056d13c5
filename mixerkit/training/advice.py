"""Notes on a run that trips where people usually do: pure functions of what it has logged.

Each note has a key, so that whoever shows them says each once.
"""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from mixerkit.training.setup import Steps

Rows = Sequence[dict[str, Any]]
Notes = dict[str, str]

EPOCHS_THAT_EVEN_OUT = 3
"""In runs this long it hardly matters that the last epoch is not a whole one."""
WORSE_EVALUATIONS, WORSE_BY = 3, 1.02
STARVING, STARVING_SECONDS = 0.25, 20.0
SHARE_TO_JUDGE_BY = 0.2
LEAST_PROGRESS = 0.02
ABOVE_START = 1.1
SPIKE, ROWS_TO_JUDGE_BY, CLIP = 20.0, 20, 1.0


def on_schedule(steps: Steps) -> Notes:
    """What the lengths of a run say before it starts."""
    epochs, rest = divmod(steps.total, steps.per_epoch)
    if epochs == 0:
        share = 1 - steps.total / steps.per_epoch
        return {
            "schedule": f"The run ends after {steps.total:,} of the {steps.per_epoch:,} steps of "
            f"its first epoch: {share:.0%} of the images are never seen. Give a longer duration."
        }
    if rest and epochs < EPOCHS_THAT_EVEN_OUT:
        return {
            "schedule": f"The run ends {rest:,} steps into epoch {epochs + 1} of "
            f"{steps.per_epoch:,} steps: some images are seen once more often than others."
        }
    return {}


def on_progress(metrics: Rows, timings: Rows, steps: Steps) -> Notes:
    """What the rows of a run say about it until now."""
    training = [row for row in metrics if row["split"] == "train"]
    validation = [row for row in metrics if row["split"] == "validation"]
    return {
        **_overfitting(training, validation),
        **_starving(timings),
        **_learning_rate(training, steps),
    }


def _overfitting(training: Rows, validation: Rows) -> Notes:
    """Held-out NLL that rose several times in a row while the training loss fell."""
    if len(validation) <= WORSE_EVALUATIONS:
        return {}
    best = min(validation, key=lambda row: row["nll"])
    since = [row for row in validation if row["step"] > best["step"]]
    before = [row["loss"] for row in training if row["step"] <= best["step"]]
    after = [row["loss"] for row in training if row["step"] > best["step"]]
    worse = all(row["nll"] > best["nll"] * WORSE_BY for row in since)
    falls = before and after and fmean(after) < min(before)
    if len(since) < WORSE_EVALUATIONS or not worse or not falls:
        return {}
    return {
        "overfitting": f"The held-out NLL was best in epoch {best['epoch']:g} ({best['nll']:.3f}, "
        f"now {since[-1]['nll']:.3f}) while the training loss still falls: the images are learned "
        f"by heart. More augmentation, a smaller model or fewer epochs help."
    }


def _starving(timings: Rows) -> Notes:
    timed = [row for row in timings if "waiting" in row]
    if not timed or timed[-1]["seconds"] < STARVING_SECONDS or timed[-1]["waiting"] < STARVING:
        return {}
    return {
        "starving": f"{timed[-1]['waiting']:.0%} of the time is spent waiting for images: store "
        f"them smaller, let data.memory hold them all, or give data.workers more processors."
    }


def _learning_rate(training: Rows, steps: Steps) -> Notes:
    """A loss that does not move or rises, or a gradient that jumps."""
    settled = [row for row in training if row["step"] > steps.warmup]
    if len(settled) < ROWS_TO_JUDGE_BY or settled[-1]["step"] < SHARE_TO_JUDGE_BY * steps.total:
        return {}
    first, recent = training[0]["loss"], fmean(row["loss"] for row in settled[-5:])
    norms = [row["gradient_norm"] for row in settled]
    if recent > ABOVE_START * first:
        what = f"The loss is {recent:.3g}, above the {first:.3g} that it began with"
        return {"learning rate": f"{what}: try a lower optimizer.lr or a longer schedule.warmup."}
    if recent > (1 - LEAST_PROGRESS) * first:
        what = f"The loss has hardly moved ({first:.3g} at first, now {recent:.3g})"
        return {"learning rate": f"{what}: try another optimizer.lr, and look at the labels."}
    if max(norms) > max(CLIP, SPIKE * median(norms)):
        what = f"The gradient norm jumped to {max(norms):.3g} (usually {median(norms):.3g})"
        to_do = f"optimizer.clip={CLIP:g} or a lower optimizer.lr is safer"
        return {"learning rate": f"{what}: {to_do}."}
    return {}
