"""A Mixer computed in float32 by our own code (`native.cpp`), compiled for this processor.

It pays for small models: on an image of 28 pixels a library's products wait for its operations, and
here there are none between them. Large models are at the limit of the processor either way.

Letters: B batch, I image channels, H W image height and width, S patches (tokens) of a tile,
C channels, T token-mixing width, D channel-mixing width, K classes, M N rows and columns.
"""

import ctypes
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from mixerkit.errors import UserError
from mixerkit.inference.mixer_graph import folded
from mixerkit.inference.native_compiler import native_library
from mixerkit.inference.stem_graph import edges
from mixerkit.spec.mixer import MixerConfig

TOKEN_MIXERS = ("mlp", "linear")
LIMITS = {"erf": 5.6, "tanh": 5.2}
"""Beyond these GELU is 0 or its input, but for what float32 cannot say."""
DEGREE = 16
AT_ONCE = 2**16
"""Floats that are worked on together, so that they stay in a core's cache: a quarter of a MiB."""
ALIGNED = 64
"""Bytes: no vector is longer."""


class Gelu(ctypes.Structure):
    """One flavour, as `native.cpp` has it."""

    _fields_ = (("limit", ctypes.c_float), ("powers", ctypes.c_float * (DEGREE + 1)))


class Shape(ctypes.Structure):
    """A model's sizes, as `native.cpp` has them."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("patch_height", "patch_width")),
        *((name, ctypes.c_int64) for name in ("tiles_down", "tiles_across", "rows", "columns")),
        *((name, ctypes.c_int64) for name in ("above", "left", "model_width", "depth")),
        *(
            (name, ctypes.c_int64)
            for name in ("token_width", "channel_width", "has_norms", "classes")
        ),
        ("epsilon", ctypes.c_float),
        ("gelu", Gelu),
    )


def computes(config: MixerConfig) -> bool:
    """Whether our own code has all that this model is made of."""
    return config.token_mixer in TOKEN_MIXERS


class Native:
    """A model that is ready to run: normalised images [B, I, H, W] → [B, K], or features [B, C]
    where there is no head, on the thread that calls; several may call at once.

    `library`: our code, compiled already. `UserError`: there is no compiler, or images have another
    shape. The configuration must be one that our code `computes`.
    """

    def __init__(
        self,
        config: MixerConfig,
        weights: Mapping[str, np.ndarray],
        library: ctypes.CDLL | None = None,
    ) -> None:
        assert computes(config), config.token_mixer
        code = library or native_library()
        number = ctypes.c_int64
        bytes_there = _typed(code.shape_bytes, number)()
        assert bytes_there == ctypes.sizeof(Shape), "native.cpp and native.py differ in Shape"
        lanes, panel = _typed(code.lanes, number)(), _typed(code.panel_columns, number)()
        self._forward, self._shape = _typed(code.forward, None, "pppnnpp"), shape_of(config)
        self._about = ctypes.addressof(self._shape)
        self._weights = packed(config, weights, lanes, panel)
        self._place = self._weights.ctypes.data
        floats = _typed(code.scratch_floats, number, "pn")
        self._at_once = max(1, AT_ONCE // floats(self._about, 1))
        self._working = _Working(floats(self._about, self._at_once))
        self._image = (config.in_channels, *config.image_hw)
        self._results = config.num_classes or config.width
        self._row = _whole(self._results, lanes)

    def __call__(self, images_BIHW: np.ndarray) -> np.ndarray:
        if images_BIHW.shape[1:] != self._image:
            raise UserError(
                f"Expected images [batch, {', '.join(map(str, self._image))}], found "
                f"{list(images_BIHW.shape)}."
            )
        images = np.ascontiguousarray(images_BIHW, np.float32)
        out = np.empty((len(images), self._row), np.float32)
        self._forward(
            self._about,
            self._place,
            images.ctypes.data,
            len(images),
            self._at_once,
            out.ctypes.data,
            self._working.place,
        )
        return np.ascontiguousarray(out[:, : self._results])


class _Working(threading.local):
    """Working memory, for each thread its own."""

    def __init__(self, floats: int) -> None:
        self.memory = aligned(floats)
        self.place = self.memory.ctypes.data


KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64}


def _typed(function: Any, result: Any, arguments: str = "") -> Any:
    """A function of the library; `arguments`: p for an address, n for a number."""
    function.restype, function.argtypes = result, [KINDS[one] for one in arguments]
    return function


def shape_of(config: MixerConfig) -> Shape:
    """What `native.cpp` must know of a model."""
    above, left, _, _ = edges(config)
    return Shape(
        config.in_channels,
        *config.image_hw,
        *config.patch_hw,
        *config.tiles_hw,
        *config.tile_grid,
        above,
        left,
        config.width,
        config.depth,
        config.token_width if config.token_mixer == "mlp" else 0,
        config.channel_width if config.channel_mixer == "mlp" else 0,
        config.norm,
        config.num_classes,
        config.norm_eps,
        Gelu(LIMITS[config.gelu], gelu_powers(config.gelu)),
    )


# -- GELU -------------------------------------------------------------------------------------


def gelu_powers(flavour: str) -> tuple[float, ...]:
    """P of gelu(x) = x/2 · (1 + x·P(x²)) for |x| up to the flavour's limit, as a polynomial in
    2x²/limit² - 1, its highest power first: both flavours are such a function, and a processor adds
    and multiplies faster than it divides."""
    limit, nodes = LIMITS[flavour], chebyshev.chebpts1(8 * DEGREE)
    x = limit * np.sqrt((nodes + 1) / 2)
    odd = np.vectorize(math.erf if flavour == "erf" else math.tanh)
    inside = x * math.sqrt(0.5) if flavour == "erf" else _of_tanh(x)
    fitted = chebyshev.chebfit(nodes, odd(inside) / x, DEGREE, w=x)
    return tuple(chebyshev.cheb2poly(fitted)[::-1])


def _of_tanh(x: np.ndarray) -> np.ndarray:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


# -- weights ----------------------------------------------------------------------------------


def packed(
    config: MixerConfig, weights: Mapping[str, np.ndarray], lanes: int, panel: int
) -> np.ndarray:
    """All numbers in the order in which the forward pass comes to them, each tensor filled up to
    whole vectors of `lanes`; matrices on the right of a product in panels of columns."""
    parts = list(_parts(config, folded(config, weights), lanes, panel))
    whole = aligned(sum(_whole(part.size, lanes) for part in parts))
    whole[:] = 0
    place = 0
    for part in parts:
        whole[place : place + part.size] = part
        place += _whole(part.size, lanes)
    return whole


def _parts(
    config: MixerConfig, weights: Mapping[str, np.ndarray], lanes: int, panel: int
) -> Iterator[np.ndarray]:
    def left(name: str) -> Iterator[np.ndarray]:
        yield weights[f"{name}.weight"].ravel()
        yield weights[f"{name}.bias"]

    def right(name: str) -> Iterator[np.ndarray]:
        yield in_panels(weights[f"{name}.weight"].reshape(len(weights[f"{name}.bias"]), -1).T)
        yield weights[f"{name}.bias"]

    def in_panels(matrix_MN: np.ndarray) -> np.ndarray:
        rows, columns = matrix_MN.shape
        wide_MN = np.zeros((rows, _whole(columns, lanes)), np.float32)
        wide_MN[:, :columns] = matrix_MN
        full = columns // panel * panel
        panels_JMn = wide_MN[:, :full].reshape(rows, -1, panel).transpose(1, 0, 2)
        return np.concatenate([panels_JMn.ravel(), wide_MN[:, full:].ravel()])

    def norm(name: str) -> Iterator[np.ndarray]:
        if config.norm:
            yield weights[f"{name}.weight"]
            yield weights[f"{name}.bias"]

    layers = {"mlp": ("fc1", "fc2"), "linear": ("fc",)}
    yield from right("stem")
    for block in (f"blocks.{i}" for i in range(config.depth)):
        yield from norm(f"{block}.token_norm")
        for layer in layers[config.token_mixer]:
            yield from left(f"{block}.token_mixing.{layer}")
        yield from norm(f"{block}.channel_norm")
        for layer in layers[config.channel_mixer]:
            yield from right(f"{block}.channel_mixing.{layer}")
    yield from norm("norm")
    if config.num_classes:
        yield from right("head")


def aligned(floats: int) -> np.ndarray:
    """float32 [floats], not set to anything, that begins where a vector may."""
    memory = np.empty(4 * floats + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + 4 * floats].view(np.float32)


def _whole(count: int, lanes: int) -> int:
    return -(-count // lanes) * lanes
