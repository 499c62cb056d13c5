"""The learning rate over a run, as a factor of its peak."""

import math

from mixerkit.spec.recipe import Schedule


def learning_rate_factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Factor at update `step` (0 is the first) of `total`, `warmup` of them rising from 0.

    The first update after the warm-up has factor 1, and the update after the last one would
    have `final`, so no update is spent at 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    if schedule.decay == "constant":
        return 1.0
    if schedule.decay == "linear":
        return 1 - (1 - schedule.final) * progress
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * progress))
