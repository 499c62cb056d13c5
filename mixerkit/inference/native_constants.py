"""A model's tensors as our own code reads them (`cpp/mixer.cpp`): all in one piece of memory, in
the order in which the forward pass comes to them.

Letters: C channels, M N rows and columns, O I outputs and inputs of a product.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from mixerkit.inference.graph import Range, rounded_steps
from mixerkit.inference.mixer_graph import EightBits, folded, smoothed
from mixerkit.inference.stem_graph import PIXELS, STEM, of_pixels
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

ALIGNED = 64
"""Bytes: no vector is longer."""
FOUR = 4
"""Numbers in 8 bits that are multiplied and added up together."""
IN_FLOAT = (0.0, 0.0)
"""In the place of a range's steps."""
TOKEN_LAYERS = {"mlp": ("fc1", "fc2"), "linear": ("fc",)}
CHANNEL_LAYERS = {"mlp": ("fc1", "fc2"), "linear": ("fc",)}


@dataclass(frozen=True)
class Ready:
    """A model's tensors as its products take them: LayerNorms folded and smoothed, and the patch
    embedding of pixels where that is in 8 bits. `ranges`: of the products in 8 bits. `preprocess`:
    how pixels became the input."""

    config: MixerConfig
    weights: Mapping[str, np.ndarray]
    ranges: Mapping[str, Range]
    preprocess: Preprocess | None


def ready(
    config: MixerConfig, weights: Mapping[str, np.ndarray], eight_bits: EightBits | None = None
) -> Ready:
    """A model's tensors as it has learned them, made ready."""
    about = eight_bits or EightBits()
    result = smoothed(config, folded(config, weights), about.smooth)
    if STEM in about.ranges:
        assert about.pixels, "how pixels became the model's input"
        result = of_pixels(result, about.pixels)
    return Ready(config, result, about.ranges, about.pixels)


@dataclass(frozen=True)
class Widths:
    """Of the library: numbers in a vector, and columns of a panel in float and in 8 bits."""

    lanes: int
    panel: int
    panel8: int


def packed(model: Ready, widths: Widths) -> np.ndarray:
    """All constants, each filled up with zeros to whole vectors; uint8."""
    parts = [np.ascontiguousarray(part) for part in _Parts(model, widths).all()]
    result = aligned(sum(_whole(part.nbytes, ALIGNED) for part in parts))
    result[:] = 0
    place = 0
    for part in parts:
        result[place : place + part.nbytes] = part.reshape(-1).view(np.uint8)
        place += _whole(part.nbytes, ALIGNED)
    return result


class _Parts:
    """The constants, one after the other."""

    def __init__(self, model: Ready, widths: Widths) -> None:
        self.config, self.weights, self.ranges = model.config, model.weights, model.ranges
        self.preprocess, self.widths = model.preprocess, widths

    def all(self) -> Iterator[np.ndarray]:
        """In the order of the forward pass."""
        yield from self._stem()
        for block in (f"blocks.{i}" for i in range(self.config.depth)):
            tokens = [
                f"{block}.token_mixing.{one}" for one in TOKEN_LAYERS[self.config.token_mixer]
            ]
            channels = [
                f"{block}.channel_mixing.{one}" for one in CHANNEL_LAYERS[self.config.channel_mixer]
            ]
            steps = [self._steps(layers, i) for layers in (tokens, channels) for i in (0, 1)]
            yield np.array(steps, np.float32)
            yield from self._norm(f"{block}.token_norm")
            for layer in tokens:
                yield from self._along(layer)
            yield from self._norm(f"{block}.channel_norm")
            for layer in channels:
                yield from self._each_row(layer)
        yield from self._norm("norm")
        if self.config.num_classes:
            yield from self._each_row("head")

    def _stem(self) -> Iterator[np.ndarray]:
        of_channel_I2 = np.zeros((self.config.in_channels, 2), np.float32)
        if STEM in self.ranges:
            assert self.preprocess
            of_channel_I2[:, 0] = 255 * np.array(self.preprocess.std)
            of_channel_I2[:, 1] = 255 * np.array(self.preprocess.mean)
        yield of_channel_I2
        yield np.array(_steps(PIXELS) if STEM in self.ranges else IN_FLOAT, np.float32)
        yield from self._each_row(STEM)

    def _steps(self, layers: list[str], index: int) -> tuple[float, float]:
        """How the input of one of the layers is rounded."""
        known = index < len(layers) and layers[index] in self.ranges
        return _steps(self.ranges[layers[index]]) if known else IN_FLOAT

    def _norm(self, name: str) -> Iterator[np.ndarray]:
        if self.config.norm:
            yield self._float(f"{name}.weight")
            yield self._float(f"{name}.bias")

    def _float(self, name: str) -> np.ndarray:
        return np.asarray(self.weights[name], np.float32)

    def _matrix(self, name: str) -> np.ndarray:
        """[O, I]."""
        weight = self._float(f"{name}.weight")
        return weight.reshape(len(weight), -1)

    def _along(self, name: str) -> Iterator[np.ndarray]:
        """A matrix on the left of its product."""
        if name not in self.ranges:
            yield self._matrix(name)
            yield self._float(f"{name}.bias")
            return
        steps_OI, *others = self._rounded(name)
        yield _filled(steps_OI, 1, FOUR)
        yield from others

    def _each_row(self, name: str) -> Iterator[np.ndarray]:
        """A matrix on the right of its product, in panels of columns."""
        if name not in self.ranges:
            filled_IO = _filled(self._matrix(name).T, 1, self.widths.lanes)
            yield _in_panels(filled_IO, self.widths.panel)
            yield self._float(f"{name}.bias")
            return
        steps_OI, *others = self._rounded(name)
        filled_OI = _filled(_filled(steps_OI, 1, FOUR), 0, self.widths.lanes)
        fours_NO4 = filled_OI.reshape(len(filled_OI), -1, FOUR).transpose(1, 0, 2)
        yield _in_panels(fours_NO4, self.widths.panel8)
        yield from others

    def _rounded(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Its steps, and by what a sum of products of steps is multiplied, and what is added, for
        each output."""
        own: Range = self.ranges[name]
        steps_OI, scale_O = rounded_steps(self._matrix(name))
        per_step_O = scale_O * own.scale
        of_zero_O = own.zero_point * steps_OI.sum(axis=1, dtype=np.int64)
        bias_O = self.weights[f"{name}.bias"] - per_step_O * of_zero_O
        return steps_OI, per_step_O.astype(np.float32), bias_O.astype(np.float32)


def _steps(own: Range) -> tuple[float, float]:
    """As `Steps` of `cpp/product8.h`."""
    return 1 / own.scale, own.zero_point


def _filled(array_MN: np.ndarray, axis: int, unit: int) -> np.ndarray:
    """Filled up with zeros at the end of an axis, to whole units."""
    missing = [(0, 0), (0, 0)]
    missing[axis] = (0, -array_MN.shape[axis] % unit)
    return np.pad(array_MN, missing)


def _in_panels(matrix_MN: np.ndarray, panel: int) -> np.ndarray:
    """Panels of columns, one after the other; the last may be narrower. Of any numbers of axes
    after the first two."""
    columns = range(0, matrix_MN.shape[1], panel)
    return np.concatenate([matrix_MN[:, first : first + panel].ravel() for first in columns])


def aligned(size: int) -> np.ndarray:
    """uint8 [size], not set to anything, that begins where a vector may."""
    memory = np.empty(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size]


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


# -- GELU -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Beyond `limits`, for either flavour, GELU is taken to be 0 or its input; inside it is a
    polynomial of that degree."""

    degree: int
    limits: Mapping[str, float]


FINE = Fit(16, {"erf": 5.6, "tanh": 5.2})
"""To what float32 can say."""
COARSE = Fit(9, {"erf": 4.5, "tanh": 4.4})
"""To 2e-5: of what is rounded to 8 bits next."""


def gelu_powers(flavour: str, fit: Fit = FINE) -> tuple[float, ...]:
    """P of gelu(x) = x/2 · (1 + x·P(x²)) for |x| up to the flavour's limit, as a polynomial in
    2x²/limit² - 1, its highest power first: both flavours are such a function, and a processor adds
    and multiplies faster than it divides."""
    limit, nodes = fit.limits[flavour], chebyshev.chebpts1(128)
    x = limit * np.sqrt((nodes + 1) / 2)
    odd = np.vectorize(math.erf if flavour == "erf" else math.tanh)
    inside = x * math.sqrt(0.5) if flavour == "erf" else _of_tanh(x)
    fitted = chebyshev.chebfit(nodes, odd(inside) / x, fit.degree, w=x)
    return tuple(chebyshev.cheb2poly(fitted)[::-1])


def _of_tanh(x: np.ndarray) -> np.ndarray:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
