"""A Mixer computed by our own code (`cpp/mixer.cpp`), compiled for this processor, in float32 or in
8 bits.

Of small models it saves what a library does between products: on an image of 28 pixels that is
most of the time. Of large ones it saves waiting for memory: each operation writes what the next one
reads in the order in which it is read, and in 8 bits already rounded.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

import ctypes
import threading
from copy import copy
from typing import Any

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.native_compiler import native_library
from mixerkit.inference.native_constants import LAYERS, Ready, Widths, aligned, packed
from mixerkit.inference.native_gelu import COARSE, FINE, Fit, gelu_powers
from mixerkit.inference.runtimes import RUNTIMES
from mixerkit.inference.stem_graph import edges
from mixerkit.spec.mixer import MixerConfig

TOKEN_MIXERS = tuple(LAYERS)
LEAST_BY_QUARTERS, LONGEST_VECTOR = 256, 16
"""Channels, from which on products by quarters may pay, and numbers in a vector at most."""
AT_ONCE, LEAST = 2**20, 2
"""Bytes that are worked on together, so that they stay in a core's cache; and images, so that large
weights are not fetched for each."""


def _polynomial(fit: Fit) -> type[ctypes.Structure]:
    """One flavour of GELU, as `cpp/gelu.h` has it."""

    class Polynomial(ctypes.Structure):
        _fields_ = (("limit", ctypes.c_float), ("powers", ctypes.c_float * (fit.degree + 1)))

    return Polynomial


Gelu, CoarseGelu = _polynomial(FINE), _polynomial(COARSE)


class Shape(ctypes.Structure):
    """A model's sizes, as `cpp/mixer.cpp` has them."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("patch_height", "patch_width")),
        *((name, ctypes.c_int64) for name in ("tiles_down", "tiles_across", "rows", "columns")),
        *((name, ctypes.c_int64) for name in ("above", "left", "model_width", "depth")),
        *((name, ctypes.c_int64) for name in ("token_width", "channel_width", "has_norms")),
        *((name, ctypes.c_int64) for name in ("classes", "eight_bits", "by_quarters")),
        ("epsilon", ctypes.c_float),
        ("gelu", Gelu),
        ("coarse_gelu", CoarseGelu),
    )


def computes(config: MixerConfig) -> bool:
    """Whether our own code has all that this model is made of."""
    return config.token_mixer in TOKEN_MIXERS


def check_computes(config: MixerConfig) -> None:
    """`UserError` unless it has."""
    if not computes(config):
        raise UserError(
            f"native computes the token mixers {' and '.join(TOKEN_MIXERS)}, found "
            f"{config.token_mixer}: leave the backend out, or choose {' or '.join(RUNTIMES)}."
        )


def can_be_quartered(config: MixerConfig) -> bool:
    """Whether products of channel mixing can be computed by quarters of the matrices: halves of
    them must be whole vectors, and tokens even in number, as pairs of them are of one image."""
    halves = config.width, config.channel_width
    return (
        config.channel_mixer == "mlp"
        and config.num_patches % 2 == 0
        and all(width % (2 * LONGEST_VECTOR) == 0 for width in halves)
    )


def pays_by_quarters(config: MixerConfig) -> bool:
    """Whether they can, and are so large that it may be faster: an eighth of the multiplications is
    saved, at the cost of additions, and of 7/4 of the weights' memory. What is rounded is as small
    as beside the largest number in a quarter, not beside the result."""
    return can_be_quartered(config) and min(config.width, config.channel_width) >= LEAST_BY_QUARTERS


def multiplies_eight_bits() -> bool:
    """Whether this processor has an operation for products in 8 bits; without one they are right,
    and slow. `UserError`: there is no compiler."""
    return bool(_typed(native_library().has_dots, ctypes.c_int64)())


class Native:
    """A model that is ready to run: normalised images [B, I, H, W] → [B, K], or features [B, C]
    where there is no head, on the thread that calls; several may call at once.

    `library`: our code, compiled already. `by_quarters`: channel mixing by seven products of
    quarters in place of eight (`cpp/quarters.h`); only of a model in float32 that
    `can_be_quartered`, by threads that have images of their own. `UserError`: there is no compiler,
    a tensor is missing or has another shape than the configuration says, or images have. The
    configuration must be one that our code `computes`. In 8 bits what is not a number becomes a
    small one.
    """

    def __init__(
        self, model: Ready, library: ctypes.CDLL | None = None, by_quarters: bool = False
    ) -> None:
        config = model.config
        assert computes(config), config.token_mixer
        assert not by_quarters or (can_be_quartered(config) and not model.ranges)
        code = library or native_library()
        number = ctypes.c_int64
        bytes_there = _typed(code.shape_bytes, number)()
        assert bytes_there == ctypes.sizeof(Shape), "mixer.cpp and native.py differ in Shape"
        counts = (code.lanes, code.tile_rows, code.panel_columns, code.panel_columns_in_8_bits)
        widths = Widths(*(_typed(one, number)() for one in counts))
        self._forward = _typed(code.forward, None, "pppnnnnpp")
        self._shape = shape_of(config, bool(model.ranges), by_quarters)
        self._about = ctypes.addressof(self._shape)
        self._constants = packed(model, widths, by_quarters)
        self._place = self._constants.ctypes.data
        self._scratch = _typed(code.scratch_bytes, number, "pnn")
        self._at_once = max(LEAST, AT_ONCE // self._scratch(self._about, 1, 1))
        self._image = (config.in_channels, *config.image_hw)
        self._results = config.num_classes or config.width
        self._row = -(-self._results // widths.lanes) * widths.lanes
        self._share(1, by_quarters)

    def by(self, threads: int, images_of_its_own: bool = False) -> "Native":
        """The same by so many threads, which compute each image together, or each of them a part of
        the images; by quarters only that."""
        assert images_of_its_own or not self._shape.by_quarters
        other = copy(self)
        other._share(threads, images_of_its_own)
        return other

    def _share(self, threads: int, images_of_its_own: bool) -> None:
        self._threads = threads, images_of_its_own
        for_each, members = (threads, 1) if images_of_its_own else (1, threads)
        self._working = _Working(for_each * self._scratch(self._about, self._at_once, members))

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
            *self._threads,
            out.ctypes.data,
            self._working.place,
        )
        return np.ascontiguousarray(out[:, : self._results])


class _Working(threading.local):
    """Working memory, for each thread its own."""

    def __init__(self, size: int) -> None:
        self.memory = aligned(size)
        self.place = self.memory.ctypes.data


KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64}


def _typed(function: Any, result: Any, arguments: str = "") -> Any:
    """A function of the library; `arguments`: p for an address, n for a number."""
    function.restype, function.argtypes = result, [KINDS[one] for one in arguments]
    return function


def shape_of(config: MixerConfig, eight_bits: bool = False, by_quarters: bool = False) -> Shape:
    """What `cpp/mixer.cpp` must know of a model."""
    above, left, _, _ = edges(config)
    flavour = config.gelu
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
        eight_bits,
        by_quarters,
        config.norm_eps,
        Gelu(FINE.limits[flavour], gelu_powers(flavour, FINE)),
        CoarseGelu(COARSE.limits[flavour], gelu_powers(flavour, COARSE)),
    )
