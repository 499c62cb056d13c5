"""Which products of a Mixer are computed in 8 bits, and from which ranges, found on images.

All-MLP models lose much when they are rounded carelessly: a few channels after a LayerNorm are far
larger than the others, and a few values far larger than the rest set the width of every step.
Against the first channels are smoothed (Xiao et al. 2023, SmoothQuant); against the second the
largest values may be cut off; where neither helps, a product stays in float.

Letters: N images, I image channels, H W image height and width, C channels, K classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.exported import normalised
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import (
    EightBits,
    Form,
    described,
    finished,
    folded,
    followed,
    mixer_graph,
    written,
)
from mixerkit.inference.runtimes import Runtime, open_graph, open_outputs
from mixerkit.inference.stem_graph import PIXELS, STEM, can_be_rounded
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

Weights = Mapping[str, np.ndarray]
Watch = Callable[[str], None]

RIGHT = Form(left_of_tokens=False)
BATCH = 8
BINS = 4096
LEFT_ALONE = ("head",)
"""Products that take next to no time and decide all."""


@dataclass(frozen=True)
class Setting:
    """How ranges are found. `percentile`: of the values that go into a product, so many are inside
    its range, half of the others below and half above. `smooth`: how much of the differences
    between channels the matrices take over, 0 (none) to 1 (SmoothQuant's α)."""

    percentile: float = 100.0
    smooth: float = 0.0


SETTINGS = tuple(
    Setting(percentile, smooth) for smooth in (0.0, 0.5) for percentile in (100.0, 99.99, 99.9)
)


@dataclass(frozen=True)
class Loss:
    """What rounding does to the logits: `signal_to_noise` in decibels, and `agreement`, the share
    of images whose likeliest class is the same as in float."""

    signal_to_noise: float
    agreement: float


class Calibration:
    """A model with a head, and the images that its ranges are found on. Graphs run in `runtime`,
    unless another is given. `UserError`: there is nothing to compare, as the model has no head, or
    gives the same logits for all images."""

    def __init__(
        self,
        config: MixerConfig,
        weights: Weights,
        preprocess: Preprocess,
        pixels_NIHW: np.ndarray,
        runtime: Runtime,
        threads: int = 0,
    ) -> None:
        self.config, self.weights, self.preprocess = config, weights, preprocess
        self.runtime, self.threads = runtime, threads
        if not config.num_classes:
            raise UserError(
                "8 bits are judged by the likeliest class, and this model has no head: export it "
                "in float32 or float16."
            )
        self.images_NIHW = normalised(pixels_NIHW, preprocess)
        self.wanted_NK = self.logits(None)
        check_varied(self.wanted_NK)
        # settings have them in common, and each is a pass over all images
        self._smooth, self._ends = cache(self._find_smooth), cache(self._find_ends)
        self._counts = cache(self._find_counts)

    def logits(self, eight_bits: EightBits | None, runtime: Runtime | None = None) -> np.ndarray:
        """What the graph gives of the images, [N, K]."""
        graph = mixer_graph(self.config, self.weights, None, RIGHT, eight_bits)
        run = open_graph(graph.SerializeToString(), runtime or self.runtime, "", self.threads).run
        return np.concatenate([run(some) for some in self._batches()])

    def loss(self, eight_bits: EightBits, runtime: Runtime | None = None) -> Loss:
        """What these 8 bits do to the logits."""
        found_NK = self.logits(eight_bits, runtime)
        noise = np.square(found_NK - self.wanted_NK).mean()
        signal = np.square(self.wanted_NK - self.wanted_NK.mean(axis=0)).mean()
        same = found_NK.argmax(axis=1) == self.wanted_NK.argmax(axis=1)
        return Loss(10 * float(np.log10(signal / max(noise, 1e-30))), float(same.mean()))

    def eight_bits(self, setting: Setting) -> EightBits:
        """Every product but the head, with ranges as `setting` says; pixels are what they are."""
        ranges = ends = self._ends(setting.smooth)
        if setting.percentile < 100:
            counts = self._counts(setting.smooth)
            ranges = {p: _inside(counts[p], own, setting.percentile) for p, own in ends.items()}
        stem = {STEM: PIXELS} if can_be_rounded(self.config) else {}
        return EightBits(stem | ranges, self._smooth(setting.smooth), self.preprocess)

    def _batches(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self.images_NIHW), BATCH):
            yield self.images_NIHW[first : first + BATCH]

    def _watched(self, smooth: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """What goes into each product, batch by batch."""
        graph = written(self.config, self.weights, None, RIGHT, EightBits({}, smooth))
        inputs = {
            product: tensor
            for product, tensor in graph.products.items()
            if product not in LEFT_ALONE
        }
        tensors = list(dict.fromkeys(inputs.values()))
        about = described(self.config, None, RIGHT)
        model = finished(graph, self.config, RIGHT, about, tensors)
        run = open_outputs(model.SerializeToString(), tensors, self.runtime, self.threads)
        for some in self._batches():
            found = run(some)
            yield {product: found[tensor] for product, tensor in inputs.items()}

    def _find_smooth(self, alpha: float) -> dict[str, np.ndarray]:
        """For each LayerNorm that a product follows, what its channels are divided by: their
        largest value to the power `alpha` over the matrix's largest to 1 − `alpha`; nothing for
        0."""
        if not alpha:
            return {}
        pairs = {product: norm for norm, product in followed(self.config)}
        largest: dict[str, np.ndarray] = {}
        for found in self._watched({}):
            for product, norm in pairs.items():
                if product in found:
                    own_C = np.abs(found[product]).max(axis=(0, 1))
                    largest[norm] = np.maximum(own_C, largest.get(norm, 0))
        weights, result = folded(self.config, self.weights), {}
        for product, norm in pairs.items():
            if norm in largest:
                matrix_C = np.abs(weights[f"{product}.weight"]).max(axis=0)
                scale_C = np.maximum(largest[norm], 1e-5) ** alpha
                scale_C /= np.maximum(matrix_C, 1e-5) ** (1 - alpha)
                result[norm] = (scale_C / np.exp(np.log(scale_C).mean())).astype(np.float32)
        return result

    def _find_ends(self, alpha: float) -> dict[str, Range]:
        """From the smallest to the largest value that goes into each product."""
        ends: dict[str, Range] = {}
        for found in self._watched(self._smooth(alpha)):
            for product, x in found.items():
                known = ends.get(product, Range(0, 0))
                low, high = min(known.low, float(x.min())), max(known.high, float(x.max()))
                ends[product] = Range(low, high)
        return ends

    def _find_counts(self, alpha: float) -> dict[str, np.ndarray]:
        """How many values there are in each of `BINS` parts between the ends."""
        ends = self._ends(alpha)
        counts = {product: np.zeros(BINS) for product in ends}
        for found in self._watched(self._smooth(alpha)):
            for product, x in found.items():
                own = ends[product]
                counts[product] += np.histogram(x, BINS, (own.low, own.high))[0]
        return counts


def check_varied(wanted_NK: np.ndarray, other: str = "") -> None:
    """`UserError` when all images have the same logits; `other`: what else can be done."""
    if not np.ptp(wanted_NK, axis=0).any():
        raise UserError(
            f"The model gives the same outputs for all images, as fresh weights with a head of "
            f"zeros do, so that nothing can be compared: give a trained model{other}."
        )


def _inside(counts: np.ndarray, ends: Range, percentile: float) -> Range:
    """The range that leaves out half of what is beyond `percentile` at either side."""
    edges = np.linspace(ends.low, ends.high, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    beyond = (1 - percentile / 100) / 2
    low = edges[np.searchsorted(share, beyond)]
    high = edges[np.searchsorted(share, 1 - beyond) + 1]
    return Range(float(low), float(high))


# -- choosing ---------------------------------------------------------------------------------


def tried(
    calibration: Calibration, watch: Watch, settings: Sequence[Setting] = SETTINGS
) -> list[tuple[Setting, EightBits, Loss]]:
    """Each setting with what it does to the logits, the least loss first."""
    found = []
    for number, setting in enumerate(settings, 1):
        eight_bits = calibration.eight_bits(setting)
        loss = calibration.loss(eight_bits)
        watch(
            f"{number} of {len(settings)}: percentile {setting.percentile:g}, "
            f"smoothing {setting.smooth:g}: signal to noise "
            f"{loss.signal_to_noise:.1f} dB, agreement {loss.agreement:.2%}"
        )
        found.append((setting, eight_bits, loss))
    return sorted(found, key=lambda one: -one[2].signal_to_noise)


def sensitivity(calibration: Calibration, eight_bits: EightBits, watch: Watch) -> dict[str, Loss]:
    """What each product alone does to the logits, in 8 bits while all others are in float; the one
    that does most first."""
    found: dict[str, Loss] = {}
    for number, (product, own) in enumerate(eight_bits.ranges.items(), 1):
        loss = calibration.loss(replace(eight_bits, ranges={product: own}))
        found[product] = loss
        watch(
            f"{number} of {len(eight_bits.ranges)}: {product}: signal to noise "
            f"{loss.signal_to_noise:.1f} dB"
        )
    return dict(sorted(found.items(), key=lambda one: one[1].signal_to_noise))


def sparing(
    eight_bits: EightBits, losses: Mapping[str, Loss], most: float = 0.5
) -> Iterator[EightBits]:
    """With one product more left in float each time, those that do most first; at most the share
    `most` of all."""
    order = list(losses)
    for count in range(1, int(most * len(order)) + 1):
        kept = {p: own for p, own in eight_bits.ranges.items() if p not in order[:count]}
        yield replace(eight_bits, ranges=kept)
