"""Whether a model may be computed in 8 bits: only if it answers as in float, and faster.

Letters: N images, I image channels, H W image height and width, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

from mixerkit.errors import Refused
from mixerkit.inference.eight_bits import (
    RIGHT,
    SETTINGS,
    Calibration,
    Loss,
    Setting,
    Watch,
    Weights,
    sensitivity,
    sparing,
    tried,
)
from mixerkit.inference.mixer_graph import PLAIN, EightBits, mixer_graph
from mixerkit.inference.runtimes import NATIVE, Runtime, installed, open_graph
from mixerkit.inference.samples import Samples, spread
from mixerkit.results import describe_machine
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.timer import Call, Comparison, compare, interleave

LEAST_AGREEMENT, LEAST_SPEED_UP = 0.99, 1.2
SENSED = 64
"""Images on which the products are told apart."""
TIMED_BATCH, ROUNDS, MOST_ROUNDS = 8, 7, 42


@dataclass(frozen=True)
class Speed:
    """How many times as fast as in float: the median of rounds in turns, and their quartiles, in
    the runtime that is fastest. `in_each`: what is gained by those who have that one only."""

    ratio: float
    low: float
    high: float
    runtime: Runtime
    in_each: Mapping[Runtime, float] = field(default_factory=dict)

    @property
    def elsewhere(self) -> str:
        """In words, what is gained in the others."""
        others = {name: own for name, own in self.in_each.items() if name != self.runtime}
        return "".join(f"; {own:.2f} in {name} alone" for name, own in others.items())

    @property
    def decided(self) -> bool:
        """Whether most rounds say the same of `LEAST_SPEED_UP`."""
        return self.low >= LEAST_SPEED_UP or self.high < LEAST_SPEED_UP


@dataclass(frozen=True)
class Verdict:
    """What was found of a model in 8 bits. `loss`: on images that had no part in the choice of
    ranges, in the runtime that agrees least. `costs`: signal to noise in decibels with one product
    alone in 8 bits, where that was measured. `judged_times`: as often were products left in float
    until the judging images agreed, and once. `machine`: where it is so; processors without VNNI
    add up 8-bit products otherwise."""

    setting: Setting
    in_float: tuple[str, ...]
    loss: Loss
    speed: Speed
    calibrated_on: int
    judged_on: int
    judged_times: int = 1
    costs: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=describe_machine)

    @property
    def passes(self) -> bool:
        """Whether it answers as in float, and faster."""
        return self.loss.agreement >= LEAST_AGREEMENT and self.speed.ratio >= LEAST_SPEED_UP

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"in_float": list(self.in_float)}


def judged(
    config: MixerConfig,
    weights: Weights,
    preprocess: Preprocess,
    samples: Samples,
    runtimes: Sequence[Runtime],
    watch: Watch,
    threads: int = 0,
    settings: Sequence[Setting] = SETTINGS,
    sense: bool = False,
) -> tuple[EightBits, Verdict]:
    """The best way to compute the model in 8 bits that is found on some real images, and how it
    does on others. Products that cost agreement are left in float; with `sense` what each costs is
    measured in any case. All `runtimes` are judged and timed; the first of others than our own code
    finds ranges, or any that is installed."""
    about = (config, weights, preprocess)
    finder = next(one for one in (*runtimes, *installed()) if one != NATIVE)
    watch(f"8 bits: ranges from {len(samples.learn)} images, judged by {len(samples.judge)} others")
    learn = Calibration(*about, samples.learn, finder, threads)
    judge = Calibration(*about, samples.judge, finder, threads)
    setting, eight_bits, known = tried(learn, watch, settings)[0]
    products, loss = set(eight_bits.ranges), _least(judge, eight_bits, runtimes)
    agrees = min(known.agreement, loss.agreement) >= LEAST_AGREEMENT
    watch(f"all but the head in 8 bits: {_judged(loss, samples)}")
    times, losses = 1, dict[str, Loss]()
    if sense or not agrees:
        watch("what does each product cost, alone in 8 bits?")
        some = samples.learn[spread(len(samples.learn), SENSED)]  # of all classes
        few = Calibration(*about, some, finder, threads)
        losses = sensitivity(few, eight_bits, watch)
    last: Loss | None = loss  # of `eight_bits`, where the judges have seen it
    for spared in sparing(eight_bits, losses) if not agrees else ():
        eight_bits, last = spared, None
        if learn.loss(spared).agreement < LEAST_AGREEMENT:
            continue
        loss, times = _least(judge, spared, runtimes), times + 1
        last = loss
        watch(f"{len(products - set(spared.ranges))} in float: {_judged(loss, samples)}")
        if loss.agreement >= LEAST_AGREEMENT:
            break
    watch(f"how fast is it in float and in 8 bits, in {' and '.join(runtimes)}?")
    verdict = Verdict(
        setting=setting,
        in_float=tuple(sorted(products - set(eight_bits.ranges))),
        loss=last or _least(judge, eight_bits, runtimes),
        speed=speed_up(judge, eight_bits, runtimes, watch),
        calibrated_on=len(samples.learn),
        judged_on=len(samples.judge),
        judged_times=times,
        costs={product: one.signal_to_noise for product, one in losses.items()},
    )
    return eight_bits, verdict


def _least(judge: Calibration, eight_bits: EightBits, runtimes: Sequence[Runtime]) -> Loss:
    """Of the runtime that agrees least with float: whichever is fastest will answer."""
    losses = (judge.loss(eight_bits, runtime) for runtime in runtimes)
    return min(losses, key=lambda one: (one.agreement, one.signal_to_noise))


def unjudged(calibration: Calibration, setting: Setting) -> tuple[EightBits, Verdict]:
    """One setting as it is, for measurements that need no gate: the loss is on the images of the
    ranges, and no speed is claimed."""
    eight_bits, count = calibration.eight_bits(setting), len(calibration.images_NIHW)
    loss = calibration.loss(eight_bits)
    speed = Speed(1.0, 1.0, 1.0, calibration.runtime)
    return eight_bits, Verdict(setting, (), loss, speed, count, count)


def _judged(loss: Loss, samples: Samples) -> str:
    count = len(samples.judge)
    return f"the {count} others agree to {loss.agreement:.2%}, expected {LEAST_AGREEMENT:.0%}"


def speed_up(
    judge: Calibration,
    eight_bits: EightBits,
    runtimes: Sequence[Runtime],
    watch: Watch = lambda line: None,
) -> Speed:
    """Seconds of a small batch in float, by the fastest of its two forms and of `runtimes`, over
    those in 8 bits, all measured in turns, until most rounds agree whether it is enough. Threads
    share each image or have images of their own, whichever is faster."""
    images = judge.images_NIHW[:TIMED_BATCH]
    model = (judge.config, judge.weights, None)
    graphs = {
        "float": mixer_graph(*model, PLAIN),
        "float, right": mixer_graph(*model, RIGHT),
        "8 bits": mixer_graph(*model, RIGHT, eight_bits),
    }
    calls: dict[str, Call] = {}
    for name, graph in graphs.items():
        content = graph.SerializeToString()
        for runtime in runtimes:
            if runtime == NATIVE and name == "float, right":
                continue  # to our own code it is the same
            for streams in (False, True):
                run = open_graph(content, runtime, "", judge.threads, streams=streams).run
                calls[f"{name} in {runtime}{', images for each' * streams}"] = partial(run, images)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    while True:
        for name, own in interleave(calls, rounds=ROUNDS, least_turn=0.05).items():
            seconds[name] += own
        runtime = min(runtimes, key=lambda one: _beside(seconds, one).seconds)
        best = _beside(seconds, runtime)
        in_each = {one: _beside(seconds, one, f" in {one}").speedup for one in runtimes}
        found = Speed(best.speedup, best.low, best.high, runtime, in_each)
        if found.decided or len(seconds[next(iter(seconds))]) >= MOST_ROUNDS:
            return found
        watch(
            f"half of the rounds say {found.low:.2f} to {found.high:.2f} times, so more are run …"
        )


def _beside(seconds: Mapping[str, list[float]], runtime: Runtime, rivals: str = "") -> Comparison:
    """8 bits in this runtime beside the fastest float, of those with `rivals` in their names."""
    own, rival = (
        min((name for name in seconds if kind in name and where in name), key=_median(seconds))
        for kind, where in (("8 bits", f" in {runtime}"), ("float", rivals))
    )
    return compare(seconds, rival)[own]


def _median(seconds: Mapping[str, list[float]]) -> Callable[[str], float]:
    return lambda name: median(seconds[name])


FORCE = "Give --precision float32, or --force to keep it all the same."


def refuse_unless_good(verdict: Verdict, instead: str = FORCE) -> None:
    """The gate: `Refused` with the figures that were measured, and what can be done `instead`."""
    if verdict.passes:
        return
    speed = verdict.speed
    doubt = (
        ""
        if speed.decided or verdict.loss.agreement < LEAST_AGREEMENT
        else f" A quarter of the rounds gave {speed.low:.2f} or less and a quarter "
        f"{speed.high:.2f} or more: try again when the machine has nothing else to do."
    )
    raise Refused(
        f"Not kept in 8 bits: the likeliest class is the same as in float for "
        f"{verdict.loss.agreement:.2%} of {verdict.judged_on} images (expected at least "
        f"{LEAST_AGREEMENT:.0%}), and {TIMED_BATCH} images at once are {speed.ratio:.2f} times as "
        f"fast in {speed.runtime} on this machine (expected at least "
        f"{LEAST_SPEED_UP:g}){speed.elsewhere}.{doubt} {instead}"
    )
