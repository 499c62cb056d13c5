"""Every token mixer in float64 NumPy, written from its definition, one token at a time: loops, and
matrices of transforms, that share no code with the package.

Each takes x [S, C], a dict of arrays, the grid (rows, columns) and the number of groups.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import erf

Weights = dict[str, np.ndarray]
Grid = tuple[int, int]


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def normed(x, w):
    spread = x - x.mean(1, keepdims=True)
    scaled = spread / np.sqrt((spread**2).mean(1, keepdims=True) + 1e-6)
    return scaled * w["norm.weight"] + w["norm.bias"]


def mlp(x, w, grid, groups):
    hidden = gelu((w["fc1.weight"] @ x).T + w["fc1.bias"])
    return w["fc2.weight"] @ hidden.T + w["fc2.bias"][:, None]


def linear(x, w, grid, groups):
    return w["fc.weight"] @ x + w["fc.bias"][:, None]


def gated(x, w, grid, groups):
    both = gelu(x @ w["proj_in.weight"].T + w["proj_in.bias"])
    u, v = both[:, : x.shape[1]], both[:, x.shape[1] :]
    gate = w["gate.weight"] @ normed(v, w) + w["gate.bias"][:, None]
    return (u * gate) @ w["proj_out.weight"].T + w["proj_out.bias"]


def attention(x, w, grid, groups):
    width = x.shape[1]
    size = width // groups
    q, k, v = np.split(x @ w["qkv.weight"].T + w["qkv.bias"], 3, axis=1)
    heads = []
    for head in range(groups):
        own = slice(head * size, (head + 1) * size)
        scores = np.exp(q[:, own] @ k[:, own].T / np.sqrt(size))
        heads.append(scores / scores.sum(1, keepdims=True) @ v[:, own])
    return np.concatenate(heads, axis=1) @ w["proj.weight"].T + w["proj.bias"]


def places(grid):
    return [(i, j) for i in range(grid[0]) for j in range(grid[1])]


def inside(grid, i, j):
    return 0 <= i < grid[0] and 0 <= j < grid[1]


def pool(x, w, grid, groups):
    out = np.zeros_like(x)
    for s, (i, j) in enumerate(places(grid)):
        near = [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        rows = [x[a * grid[1] + b] for a, b in near if inside(grid, a, b)]
        out[s] = np.mean(rows, axis=0) - x[s]
    return out


def transform(size):
    """The unitary Fourier matrix."""
    index = np.arange(size)
    return np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size)


def fourier(x, w, grid, groups):
    return (transform(len(x)) @ x @ transform(x.shape[1])).real


def global_filter(x, w, grid, groups):
    """A circular convolution with the kernel whose half spectrum the filter is."""
    rows, columns = grid
    half = w["filter"][..., 0] + 1j * w["filter"][..., 1]
    kernel = np.fft.irfft2(half, s=grid, axes=(0, 1))
    out = np.zeros_like(x)
    for s, (i, j) in enumerate(places(grid)):
        for t, (a, b) in enumerate(places(grid)):
            out[s] += kernel[(i - a) % rows, (j - b) % columns] * x[t]
    return out


def depthwise(x, w, grid, groups):
    kernel = w["weight"][:, 0]
    middle = kernel.shape[1] // 2
    out = np.zeros_like(x)
    for s, (i, j) in enumerate(places(grid)):
        for a in range(kernel.shape[1]):
            for b in range(kernel.shape[2]):
                row, column = i + a - middle, j + b - middle
                if inside(grid, row, column):
                    out[s] += kernel[:, a, b] * x[row * grid[1] + column]
    return gelu(out + w["bias"])


def shift(x, w, grid, groups):
    """What arrives at a place comes from above, below, the left and the right."""
    moves = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    quarters = np.array_split(np.arange(x.shape[1]), 4)
    out = x.copy()
    for (down, right), channels in zip(moves, quarters, strict=True):
        for s, (i, j) in enumerate(places(grid)):
            if inside(grid, i + down, j + right):
                out[s, channels] = x[(i + down) * grid[1] + j + right, channels]
    return out


def random(x, w, grid, groups):
    return w["weight"] @ x


def circulant(x, w, grid, groups):
    rows, columns = grid
    out = np.zeros_like(x)
    for s, (i, j) in enumerate(places(grid)):
        for a, b in places(grid):
            there = (i + a) % rows * columns + (j + b) % columns
            out[s] += w["kernel"][0, 0, a, b] * x[there]
    return out + w["bias"]


def grouped(x, w, grid, groups):
    size = x.shape[1] // groups
    biases = {name: w[f"{name}.bias"].reshape(groups, -1) for name in ("fc1", "fc2")}
    parts = []
    for group in range(groups):
        own = {"fc1.weight": w["fc1.weight"][group], "fc1.bias": biases["fc1"][group]}
        own |= {"fc2.weight": w["fc2.weight"][group], "fc2.bias": biases["fc2"][group]}
        parts.append(mlp(x[:, group * size : (group + 1) * size], own, grid, 1))
    return np.concatenate(parts, axis=1)


def untied(x, w, grid, groups):
    return grouped(x, w, grid, x.shape[1])


def identity(x, w, grid, groups):
    return x


ORACLES: dict[str, Callable[[np.ndarray, Weights, Grid, int], np.ndarray]] = {
    "mlp": mlp,
    "linear": linear,
    "gated": gated,
    "attention": attention,
    "pool": pool,
    "fourier": fourier,
    "global-filter": global_filter,
    "depthwise": depthwise,
    "shift": shift,
    "random": random,
    "circulant": circulant,
    "untied": untied,
    "grouped": grouped,
    "identity": identity,
}
