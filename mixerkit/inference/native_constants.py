"""A model's tensors as our own code reads them (`cpp/mixer.cpp`): all in one piece of memory, in
the order in which the forward pass comes to them.

Letters: I image channels, C channels, M N rows and columns, O I outputs and inputs of a product.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.graph import Range, rounded_steps
from mixerkit.inference.mixer_graph import EightBits, folded, smoothed
from mixerkit.inference.stem_graph import PIXELS, STEM, can_be_rounded, of_pixels
from mixerkit.spec.mixer import MixerConfig

ALIGNED = 64
"""Bytes: no vector is longer."""
LANE = 4
"""Numbers in 8 bits that are multiplied and added up in one go."""
MOST_INPUTS = 2**31 // (255 * 127)
"""Of a product in 8 bits, whose sums are then exact."""
LAYERS = {"mlp": ("fc1", "fc2"), "linear": ("fc",)}
"""By the kind of a token or channel mixer."""
Rounding = tuple[float, float]
"""Steps in a unit, and the step that 0 is, as `cpp/product8.h` has them."""
IN_FLOAT: Rounding = (0.0, 0.0)


@dataclass(frozen=True)
class Ready:
    """A model's tensors as its products take them: LayerNorms folded and smoothed, and the patch
    embedding of pixels where that is in 8 bits. `ranges`: of the products in 8 bits. `mean` and
    `std`: by which pixels from 0 to 1 became the input, one number or one for each channel."""

    config: MixerConfig
    weights: Mapping[str, np.ndarray]
    ranges: Mapping[str, Range]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def ready(
    config: MixerConfig, weights: Mapping[str, np.ndarray], eight_bits: EightBits | None = None
) -> Ready:
    """A model's tensors as it has learned them, made ready."""
    about = eight_bits or EightBits()
    result = smoothed(config, folded(config, weights), about.smooth)
    if STEM not in about.ranges:
        return Ready(config, result, about.ranges)
    assert about.pixels, "how pixels became the model's input"
    result = of_pixels(result, about.pixels)
    return Ready(config, result, about.ranges, about.pixels.mean, about.pixels.std)


@dataclass(frozen=True)
class Widths:
    """Of the library: numbers in a vector, rows of a tile, and columns of a panel in float and in
    8 bits."""

    lanes: int
    tile: int
    panel: int
    panel8: int


def packed(model: Ready, widths: Widths, by_quarters: bool = False) -> np.ndarray:
    """All constants, each filled up with zeros to whole vectors; uint8. `by_quarters`: for products
    of channel mixing that are computed so. `UserError`: a tensor is not there, or has another shape
    than the configuration says, or there is one too many."""
    order = _Parts(model, widths, by_quarters)
    parts = [np.ascontiguousarray(part) for part in order.all()]
    if more := sorted(set(model.weights) - order.taken):
        raise UserError(
            f"Expected no tensor {more[0]}, as the model's configuration says: export the model "
            f"again."
        )
    result = aligned(sum(_whole(part.nbytes, ALIGNED) for part in parts))
    result[:] = 0
    place = 0
    for part in parts:
        result[place : place + part.nbytes] = part.reshape(-1).view(np.uint8)
        place += _whole(part.nbytes, ALIGNED)
    return result


class _Parts:
    """The constants, one after the other."""

    def __init__(self, model: Ready, widths: Widths, by_quarters: bool) -> None:
        self.model, self.config, self.widths = model, model.config, widths
        self.by_quarters = by_quarters
        self.ranges = model.ranges
        self.taken: set[str] = set()

    def all(self) -> Iterator[np.ndarray]:
        """In the order of the forward pass."""
        config = self.config
        width, tokens = config.width, config.tile_patches
        yield from self._stem()
        for block in (f"blocks.{i}" for i in range(config.depth)):
            along, over = (
                [f"{block}.{part}.{layer}" for layer in LAYERS[kind]]
                for part, kind in (
                    ("token_mixing", config.token_mixer),
                    ("channel_mixing", config.channel_mixer),
                )
            )
            roundings = [self._rounding(layers, i) for layers in (along, over) for i in (0, 1)]
            yield np.array(roundings, np.float32)
            yield from self._norm(f"{block}.token_norm")
            for layer, *shape in _chain(along, tokens, config.token_width):
                yield from self._along(layer, *shape)
            yield from self._norm(f"{block}.channel_norm")
            for layer, *shape in _chain(over, width, config.channel_width):
                if self.by_quarters:
                    yield from self._sevens(layer, *shape)
                else:
                    yield from self._each_row(layer, *shape)
        yield from self._norm("norm")
        if config.num_classes:
            yield from self._each_row("head", config.num_classes, width)

    def _stem(self) -> Iterator[np.ndarray]:
        rounded, channels = STEM in self.ranges, self.config.in_channels
        assert not rounded or can_be_rounded(self.config)
        of_channel_I2 = np.zeros((channels, 2), np.float32)
        if rounded:
            of_channel_I2[:, 0] = 255 * np.array(self.model.std)
            of_channel_I2[:, 1] = 255 * np.array(self.model.mean)
        yield of_channel_I2
        yield np.array(_rounding(PIXELS) if rounded else IN_FLOAT, np.float32)
        high, wide = self.config.patch_hw
        yield from self._each_row(STEM, self.config.width, channels * high * wide)

    def _rounding(self, layers: list[str], index: int) -> Rounding:
        """Of what goes into one of the layers."""
        known = index < len(layers) and layers[index] in self.ranges
        return _rounding(self.ranges[layers[index]]) if known else IN_FLOAT

    def _norm(self, name: str) -> Iterator[np.ndarray]:
        if self.config.norm:
            yield self._vector(f"{name}.weight", self.config.width)
            yield self._vector(f"{name}.bias", self.config.width)

    def _vector(self, name: str, size: int) -> np.ndarray:
        return self._shaped(name, (size,))

    def _layer(self, name: str, outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
        """Its matrix [O, I], which may have more axes where it is the patch embedding's, and its
        bias [O]."""
        matrix_OI = self._shaped(f"{name}.weight", (outputs, inputs))
        return matrix_OI, self._vector(f"{name}.bias", outputs)

    def _shaped(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self.model.weights.get(name)
        self.taken.add(name)
        if tensor is None or tensor.shape[:1] != shape[:1] or tensor.size != np.prod(shape):
            found = "none" if tensor is None else f"one of shape {list(tensor.shape)}"
            raise UserError(
                f"Expected a tensor {name} of shape {list(shape)}, as the model's configuration "
                f"says, found {found}: export the model again."
            )
        return np.asarray(tensor, np.float32).reshape(shape)

    def _along(self, name: str, outputs: int, inputs: int) -> Iterator[np.ndarray]:
        """A matrix on the left of its product, in tiles of rows."""
        matrix_OI, bias_O = self._layer(name, outputs, inputs)
        if name not in self.ranges:
            yield _in_tiles(matrix_OI, self.widths.tile, self.widths.lanes)
            yield bias_O
            return
        steps_OI, *others = self._rounded(name, matrix_OI, bias_O)
        yield _filled(steps_OI, 1, LANE)
        yield from others

    def _each_row(self, name: str, outputs: int, inputs: int) -> Iterator[np.ndarray]:
        """A matrix on the right of its product, in panels of columns."""
        matrix_OI, bias_O = self._layer(name, outputs, inputs)
        if name not in self.ranges:
            yield _in_panels(_filled(matrix_OI.T, 1, self.widths.lanes), self.widths.panel)
            yield bias_O
            return
        steps_OI, *others = self._rounded(name, matrix_OI, bias_O)
        filled_OI = _filled(_filled(steps_OI, 1, LANE), 0, self.widths.lanes)
        lanes_NO4 = filled_OI.reshape(len(filled_OI), -1, LANE).transpose(1, 0, 2)
        yield _in_panels(lanes_NO4, self.widths.panel8)
        yield from others

    def _sevens(self, name: str, outputs: int, inputs: int) -> Iterator[np.ndarray]:
        """A matrix on the right of its product, as the sums of its quarters that seven products
        take (`cpp/quarters.h`): of each panel all seven, one after the other."""
        matrix_OI, bias_O = self._layer(name, outputs, inputs)
        (upper_left, upper_right), (lower_left, lower_right) = (
            np.split(half, 2, axis=1) for half in np.split(matrix_OI.T, 2)
        )
        sums = [
            *(upper_left + lower_right, upper_left, upper_right - lower_right),
            *(lower_left - upper_left, lower_right, upper_left + upper_right),
            lower_left + lower_right,
        ]
        firsts = range(0, outputs // 2, self.widths.panel)
        panels = (one[:, first : first + self.widths.panel] for first in firsts for one in sums)
        yield np.concatenate([panel.ravel() for panel in panels])
        yield bias_O

    def _rounded(
        self, name: str, matrix_OI: np.ndarray, bias_O: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Its steps, and by what a sum of products of steps is multiplied, and what is added, for
        each output."""
        assert matrix_OI.shape[1] <= MOST_INPUTS
        own: Range = self.ranges[name]
        steps_OI, scale_O = rounded_steps(matrix_OI)
        per_step_O = scale_O * own.scale
        of_zero_O = own.zero_point * steps_OI.sum(axis=1, dtype=np.int64)
        return (
            steps_OI,
            per_step_O.astype(np.float32),
            (bias_O - per_step_O * of_zero_O).astype(np.float32),
        )


def _chain(layers: list[str], width: int, hidden: int) -> list[tuple[str, int, int]]:
    """Each layer with its outputs and inputs: one map, or to the hidden width and back."""
    if len(layers) == 1:
        return [(layers[0], width, width)]
    return [(layers[0], hidden, width), (layers[1], width, hidden)]


def _rounding(own: Range) -> Rounding:
    return 1 / own.scale, own.zero_point


def _filled(array_MN: np.ndarray, axis: int, unit: int) -> np.ndarray:
    """Filled up with zeros at the end of an axis, to whole units."""
    missing = [(0, 0), (0, 0)]
    missing[axis] = (0, -array_MN.shape[axis] % unit)
    return np.pad(array_MN, missing)


def _in_tiles(matrix_MN: np.ndarray, rows: int, lanes: int) -> np.ndarray:
    """Tiles of so many rows, one after the other, filled up with zeros: of all its rows the first
    vectors, then the second ones."""
    filled_MN = _filled(_filled(matrix_MN, 0, rows), 1, lanes)
    tiles = filled_MN.reshape(len(filled_MN) // rows, rows, -1, lanes)
    return tiles.transpose(0, 2, 1, 3)


def _in_panels(matrix_MN: np.ndarray, panel: int) -> np.ndarray:
    """Panels of columns, one after the other; the last may be narrower. There may be more axes
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
