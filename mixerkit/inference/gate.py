"""Whether a model may be computed in 8 bits: only if it answers as in float, and faster.

Letters: N images, I image channels, H W image height and width, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from mixerkit.errors import Refused, UserError
from mixerkit.inference.eight_bits import (
    RIGHT,
    SETTINGS,
    Calibration,
    Loss,
    Setting,
    Watch,
    sensitivity,
    spared,
    tried,
)
from mixerkit.inference.mixer_graph import PLAIN, EightBits, mixer_graph
from mixerkit.inference.runtimes import Runtime, open_graph
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.timer import compare, interleave

LEAST_AGREEMENT, LEAST_SPEED_UP = 0.99, 1.2
FEWEST = 32
"""Images: half of them for the ranges, half to judge by."""
TIMED_BATCH, ROUNDS = 8, 7


@dataclass(frozen=True)
class Verdict:
    """What was found of a model in 8 bits. `loss`: on images that had no part in the choices;
    `speed_up`: over the float graph, by medians of rounds in turns."""

    setting: Setting
    in_float: tuple[str, ...]
    loss: Loss
    speed_up: float
    runtime: Runtime
    calibrated_on: int
    judged_on: int

    @property
    def passes(self) -> bool:
        """Whether it answers as in float, and faster."""
        return self.loss.agreement >= LEAST_AGREEMENT and self.speed_up >= LEAST_SPEED_UP

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"in_float": list(self.in_float)}


def judged(
    config: MixerConfig,
    weights: Mapping[str, np.ndarray],
    preprocess: Preprocess,
    pixels_NIHW: np.ndarray,
    runtime: Runtime,
    watch: Watch,
    threads: int = 0,
    settings: Sequence[Setting] = SETTINGS,
) -> tuple[EightBits, Verdict]:
    """The best way to compute the model in 8 bits that is found on one half of real images, and how
    it does on the other half. Products that cost agreement are left in float."""
    if len(pixels_NIHW) < FEWEST:
        raise UserError(
            f"8 bits need at least {FEWEST} images to find ranges and to judge by, found "
            f"{len(pixels_NIHW)}: give more with --images."
        )
    learn, rest = pixels_NIHW[::2], pixels_NIHW[1::2]
    calibration = Calibration(config, weights, preprocess, learn, runtime, threads)
    setting, eight_bits, loss = tried(calibration, watch, settings)[0]
    if loss.agreement < LEAST_AGREEMENT:
        watch("too many images change their class: which product costs most?")
        losses = sensitivity(calibration, eight_bits, watch)
        products = set(eight_bits.ranges)
        eight_bits, loss = spared(calibration, eight_bits, losses, LEAST_AGREEMENT)
        in_float = tuple(sorted(products - set(eight_bits.ranges)))
    else:
        in_float = ()
    judge = Calibration(config, weights, preprocess, rest, runtime, threads)
    verdict = Verdict(
        setting=setting,
        in_float=in_float,
        loss=judge.loss(eight_bits),
        speed_up=speed_up(judge, eight_bits),
        runtime=runtime,
        calibrated_on=len(learn),
        judged_on=len(rest),
    )
    return eight_bits, verdict


def unjudged(calibration: Calibration, setting: Setting) -> tuple[EightBits, Verdict]:
    """One setting as it is, for measurements that need no gate: the loss is on the images of the
    ranges, and no speed is claimed."""
    eight_bits, count = calibration.eight_bits(setting), len(calibration.images_NIHW)
    loss = calibration.loss(eight_bits)
    return eight_bits, Verdict(setting, (), loss, 1.0, calibration.runtime, count, count)


def speed_up(judge: Calibration, eight_bits: EightBits) -> float:
    """Seconds of a small batch in float, by the faster of its two forms, over those in 8 bits, both
    measured in turns."""
    images = judge.images_NIHW[:TIMED_BATCH]
    graphs = {
        "float": mixer_graph(judge.config, judge.weights, None, PLAIN),
        "float, right": mixer_graph(judge.config, judge.weights, None, RIGHT),
        "8 bits": mixer_graph(judge.config, judge.weights, None, RIGHT, eight_bits),
    }
    runs = {
        name: partial(
            open_graph(graph.SerializeToString(), judge.runtime, "", judge.threads).run, images
        )
        for name, graph in graphs.items()
    }
    found = compare(interleave(runs, rounds=ROUNDS, least_turn=0.05), "8 bits")
    return min(1 / found[name].speedup for name in ("float", "float, right"))


def refuse_unless_good(verdict: Verdict) -> None:
    """The gate: `Refused` with the figures that were measured."""
    if verdict.passes:
        return
    raise Refused(
        f"Not kept in 8 bits: the likeliest class is the same as in float for "
        f"{verdict.loss.agreement:.2%} of {verdict.judged_on} images (expected at least "
        f"{LEAST_AGREEMENT:.0%}), and it is {verdict.speed_up:.2f} times as fast in "
        f"{verdict.runtime} on this machine (expected at least {LEAST_SPEED_UP:g}). Give "
        f"--precision float32, or --force to keep it all the same."
    )
