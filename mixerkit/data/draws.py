"""Random numbers without state: a pure function of (seed, epoch, index, stream).

splitmix64 (Steele, Lea and Flood 2014) as a hash, in wrapping 64-bit integers: the same
numbers on every machine and with every version of NumPy and PyTorch.
"""

from functools import lru_cache

import numpy as np

# One stream per purpose, so that switching one kind of augmentation on leaves the draws of
# the others as they were. The numbers are part of what makes a run repeatable.
ORDER, FLIP, SHIFT, CROP, ERASE, NOISE, MIX, HOLD_OUT, RANDAUGMENT, BLOCKS, DROP_PATH = range(11)

_STEP = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def uniforms(seed: int, epoch: int, index: np.ndarray, count: int, stream: int = 0) -> np.ndarray:
    """float64 [len(index), count] in [0, 1), multiples of 2⁻⁵³."""
    key = np.uint64(_key(seed, epoch, stream))
    start = splitmix64(np.asarray(index, dtype=np.int64).astype(np.uint64) ^ key)
    steps = np.arange(count, dtype=np.uint64) * np.uint64(_STEP)
    words = splitmix64(start[:, None] + steps)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=64)  # the same for every batch of an epoch
def _key(*words: int) -> int:
    key = 0
    for word in words:
        key = int(splitmix64(np.array([(key ^ word) & _MASK], np.uint64))[0])
    return key


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The generator's output for each uint64 state (it advances the state, then mixes)."""
    z = state + np.uint64(_STEP)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits `count` items: int64 [count]."""
    draw = uniforms(seed, epoch, np.arange(count), 1, ORDER)[:, 0]
    return np.argsort(draw, kind="stable")


def shuffled_in_blocks(seed: int, epoch: int, blocks: np.ndarray, together: int) -> np.ndarray:
    """The order in which an epoch visits items that are read by the block: int64 [N]. Blocks come
    in any order; as many as begin within `together` items are visited as if they were one."""
    _, block, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    draw = uniforms(seed, epoch, np.arange(len(sizes)), 1, BLOCKS)[:, 0]
    order = np.argsort(draw, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    window = np.empty_like(before)
    window[order] = before // together
    draw = uniforms(seed, epoch, np.arange(len(blocks)), 1, ORDER)[:, 0]
    return np.lexsort((draw, window[block]))


def symmetric_beta(shape: float, draws: np.ndarray) -> np.ndarray:
    """Beta(shape, shape) from uniform draws [N, 3]: float64 [N] in [0, 1].

    Devroye's one line (1996, "Random variate generation in one line of code"), exact for
    every shape > 0, without rejection.
    """
    u, v, sign = 1 - draws[:, 0], draws[:, 1], np.where(draws[:, 2] < 0.5, -1, 1)
    with np.errstate(over="ignore", divide="ignore"):  # 1/0 and overflow are the right limits
        spread = (u ** (-1 / shape) - 1) * np.cos(2 * np.pi * v) ** 2
        return np.asarray(0.5 + sign / (2 * np.sqrt(1 + 1 / spread)))
