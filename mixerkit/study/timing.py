"""How fast the models of a study are, all timed in the same rounds.

Seconds that a run took say little: other runs were at work beside it. Here every arm's model takes
its turn, alone on the machine.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch

from mixerkit.benchmark.workload import Mode, workload
from mixerkit.model.mixer import MlpMixer
from mixerkit.study.grid import Configuration
from mixerkit.study.runner import model_of
from mixerkit.timer import interleave

ROUNDS = 7


def speeds(arms: Sequence[Configuration]) -> list[dict[str, float]]:
    """Of each arm, with batches as in training, in float32 on the processor: the seconds of forward
    and backward pass together, and the images per second of a forward pass. What an optimiser adds
    depends on the parameters alone, and is left out."""
    step, forward = _seconds(arms, "training"), _seconds(arms, "forward")
    return [
        {
            "step_seconds": step[one.name],
            "images_per_second": one.recipe.batch_size / forward[one.name],
        }
        for one in arms
    ]


def _seconds(arms: Sequence[Configuration], mode: Mode) -> dict[str, float]:
    """Medians over the rounds."""
    torch.manual_seed(0)
    calls = {
        one.name: workload(
            model_of(replace(one, order="")) or MlpMixer(one.recipe.model),
            one.recipe.model,
            one.recipe.batch_size,
            mode,
        )
        for one in arms
    }
    taken = interleave(calls, rounds=ROUNDS, warmup=1)
    return {name: median(seconds) for name, seconds in taken.items()}
