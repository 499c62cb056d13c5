"""The Mixer of the paper in float64 NumPy, written from its formulas: the oracle of the tests.

It shares no code with the package: patches are cut out one by one, token mixing transposes
as the paper writes it, and the weights are a plain dict of arrays.
"""

import numpy as np
from scipy.special import erf

GELU = {
    "erf": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x))),
}


def mixer(images, weights, *, patch, depth, gelu, eps=1e-6):
    """Logits [B, K] of images [B, I, H, W]; `patch` is (height, width)."""
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}

    def norm(x, name):
        spread = x - x.mean(-1, keepdims=True)
        scaled = spread / np.sqrt((spread**2).mean(-1, keepdims=True) + eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def mlp(x, name):
        return dense(GELU[gelu](dense(x, f"{name}.fc1")), f"{name}.fc2")

    x = embed(np.asarray(images, np.float64), w["stem.weight"], w["stem.bias"], patch)
    for i in range(depth):
        mixed = mlp(norm(x, f"blocks.{i}.token_norm").swapaxes(1, 2), f"blocks.{i}.token_mixing")
        x = x + mixed.swapaxes(1, 2)
        x = x + mlp(norm(x, f"blocks.{i}.channel_norm"), f"blocks.{i}.channel_mixing")
    return dense(norm(x, "norm").mean(1), "head")


def embed(images, kernel, bias, patch):
    """Tokens [B, S, C], left to right and then down."""
    rows = range(0, images.shape[2], patch[0])
    columns = range(0, images.shape[3], patch[1])
    boxes = [images[:, :, r : r + patch[0], c : c + patch[1]] for r in rows for c in columns]
    flat = kernel.reshape(len(kernel), -1)
    return np.stack([box.reshape(len(images), -1) @ flat.T + bias for box in boxes], axis=1)


def difference(found, expected):
    """The largest difference over the largest reference value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()
