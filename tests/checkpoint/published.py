"""Files in the exact names, shapes and order of axes of the published Mixers, with random numbers.

Written from the format alone: nothing here comes from the package. `oracle_weights` gives the
same numbers under the names that the NumPy oracle reads.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Shape:
    """P patch side, C channels, L blocks, T and D mixing widths, S tokens, K classes."""

    P: int
    C: int
    L: int
    T: int
    D: int
    S: int
    K: int = 1000
    I: int = 3  # noqa: E741


def named(label: str, classes: int = 1000, blocks: int | None = None) -> Shape:
    """The paper's table 1 at 224 px."""
    width, depth = {"S": (512, 8), "B": (768, 12), "L": (1024, 24), "H": (1280, 32)}[label[0]]
    patch = int(label[2:])
    depth = blocks or depth
    return Shape(patch, width, depth, width // 2, 4 * width, (224 // patch) ** 2, classes)


FILES = {
    "imagenet1k/Mixer-B_16": named("B/16"),
    "imagenet1k/Mixer-L_16": named("L/16"),
    "imagenet21k/Mixer-B_16": named("B/16", 21843),
    "imagenet21k/Mixer-L_16": named("L/16", 21843),
    "sam/Mixer-B_16": named("B/16"),
    "sam/Mixer-B_32": named("B/32"),
    "gsam/Mixer-S_8": named("S/8"),
    "gsam/Mixer-S_16": named("S/16"),
    "gsam/Mixer-S_32": named("S/32"),
    "gsam/Mixer-B_16": named("B/16"),
    "gsam/Mixer-B_32": named("B/32"),
}
TINY = Shape(P=4, C=12, L=2, T=5, D=20, S=9, K=3)


def linen(shape: Shape, seed: int = 0) -> dict[str, np.ndarray]:
    """Every array of a file of the Linen era."""
    rng = np.random.default_rng(seed)

    def kernel(*sides: int) -> np.ndarray:
        fan_in = int(np.prod(sides[:-1]))
        values = rng.random(sides, dtype=np.float32) * 2 - 1
        return (values * np.float32((3 / fan_in) ** 0.5)).astype(np.float32)

    def vector(side: int, centre: float = 0.0) -> np.ndarray:
        return (rng.random(side, dtype=np.float32) * 0.4 - 0.2 + centre).astype(np.float32)

    s = shape
    arrays = {"stem/kernel": kernel(s.P, s.P, s.I, s.C), "stem/bias": vector(s.C)}
    for i in range(s.L):
        block = f"MixerBlock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            arrays[f"{block}/{norm}/scale"] = vector(s.C, 1.0)
            arrays[f"{block}/{norm}/bias"] = vector(s.C)
        for part, size, hidden in (("token_mixing", s.S, s.T), ("channel_mixing", s.C, s.D)):
            arrays[f"{block}/{part}/Dense_0/kernel"] = kernel(size, hidden)
            arrays[f"{block}/{part}/Dense_0/bias"] = vector(hidden)
            arrays[f"{block}/{part}/Dense_1/kernel"] = kernel(hidden, size)
            arrays[f"{block}/{part}/Dense_1/bias"] = vector(size)
    arrays["pre_head_layer_norm/scale"] = vector(s.C, 1.0)
    arrays["pre_head_layer_norm/bias"] = vector(s.C)
    arrays["head/kernel"] = kernel(s.C, s.K)
    arrays["head/bias"] = vector(s.K)
    return arrays


def before_linen(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same under the names of before Linen, with the axes of length 1 of those files."""
    renamed = {}
    for name, array in arrays.items():
        old = name.replace("stem/", "embedding/")
        old = old.replace("pre_head_layer_norm", "Mixer/encoder_norm")
        old = old.replace("MixerBlock_", "Mixer/encoderblock_")
        for part in ("token_mixing", "channel_mixing"):
            for index, number in (("0", "1"), ("1", "2")):
                for leaf in ("kernel", "bias"):
                    old = old.replace(
                        f"{part}/Dense_{index}/{leaf}", f"{part}_phase_0/{leaf}{number}"
                    )
        if "token_mixing_phase_0/kernel" in old:
            array = array[None]
        if "token_mixing_phase_0/bias" in old:
            array = array[None, :, None]
        renamed[old] = array
    return renamed


def numbered_through(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The numbering of before Linen: one count through all classes of a scope."""
    renamed = {}
    for name, array in arrays.items():
        parts = name.split("/")
        if parts[0].startswith("MixerBlock_"):
            index = int(parts[0].removeprefix("MixerBlock_"))
            parts[0] = f"MixerBlock_{index + 1}"  # the stem was number 0
            parts[1] = {"LayerNorm_1": "LayerNorm_2"}.get(parts[1], parts[1])
        renamed["/".join(parts)] = array
    return renamed


def prefixed(arrays: dict[str, np.ndarray], prefix: str = "params/") -> dict[str, np.ndarray]:
    """As training checkpoints have them."""
    return {prefix + name: array for name, array in arrays.items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """An uncompressed .npz, as the authors'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def oracle_weights(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the Linen era as `tests/oracle.py` reads them."""
    weights = {}
    for name, array in arrays.items():
        parts = name.split("/")
        leaf = {"kernel": "weight", "scale": "weight", "bias": "bias"}[parts[-1]]
        if parts[0] == "stem" and leaf == "weight":
            array = np.transpose(array, (3, 2, 0, 1))
        elif parts[-1] == "kernel":
            array = array.T
        where = {"stem": "stem", "pre_head_layer_norm": "norm", "head": "head"}.get(parts[0])
        if where is None:
            block = parts[0].removeprefix("MixerBlock_")
            inner = {
                "LayerNorm_0": "token_norm",
                "LayerNorm_1": "channel_norm",
                "Dense_0": "fc1",
                "Dense_1": "fc2",
            }
            middle = [inner.get(part, part) for part in parts[1:-1]]
            where = ".".join(["blocks", block, *middle])
        weights[f"{where}.{leaf}"] = array
    return weights
