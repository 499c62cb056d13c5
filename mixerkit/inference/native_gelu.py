"""GELU as a polynomial, as our own code computes it (`cpp/gelu.h`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

NODES = 128
"""Points that a polynomial is fitted to."""


@dataclass(frozen=True)
class Fit:
    """Beyond `limits`, for either flavour, GELU is taken to be 0 or its input; inside it is a
    polynomial of that degree."""

    degree: int
    limits: Mapping[str, float]


FINE = Fit(16, {"erf": 5.6, "tanh": 5.2})
"""To what float32 can say."""
COARSE = Fit(9, {"erf": 4.5, "tanh": 4.4})
"""To 2e-5: of the results of products in 8 bits."""


def gelu_powers(flavour: str, fit: Fit = FINE) -> tuple[float, ...]:
    """P of gelu(x) = x/2 · (1 + x·P(x²)) for |x| up to the flavour's limit, as a polynomial in
    2x²/limit² - 1, its highest power first: both flavours are such a function, and a processor adds
    and multiplies faster than it divides."""
    limit, nodes = fit.limits[flavour], chebyshev.chebpts1(NODES)
    x = limit * np.sqrt((nodes + 1) / 2)
    odd = np.vectorize(math.erf if flavour == "erf" else math.tanh)
    inside = x * math.sqrt(0.5) if flavour == "erf" else _of_tanh(x)
    fitted = chebyshev.chebfit(nodes, odd(inside) / x, fit.degree, w=x)
    return tuple(chebyshev.cheb2poly(fitted)[::-1])


def _of_tanh(x: np.ndarray) -> np.ndarray:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
