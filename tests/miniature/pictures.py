"""Pictures of classes that can be learned, and told apart by people: coloured stripes.

A class is two colours and the stripes' angle and width. Where the stripes begin, how bright it is
and the noise of each pixel differ from picture to picture. Letters: N pictures, H and W pixels.
"""

import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = 0.618034
"""Multiples of it, modulo 1, are spread evenly however many there are."""
NOISE = 25.0
"""Standard deviation, of 255."""


def pictures(labels_N: np.ndarray, side: int, *seed: int) -> np.ndarray:
    """One picture of each label, uint8 [N, side, side, 3]: a function of the arguments."""
    random = np.random.default_rng(seed)
    stripes_NHW1 = _stripes(labels_N, side, random)[..., None]
    dark, light = (_colours(labels_N, shift)[:, None, None] for shift in (0.0, 0.3))
    brightness = random.uniform(0.7, 1.1, (len(labels_N), 1, 1, 1))
    clean = 255 * brightness * (dark + (light - dark) * stripes_NHW1)
    return (clean + random.normal(0, NOISE, clean.shape)).clip(0, 255).astype(np.uint8)


def _stripes(labels_N: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Between 0 and 1, [N, H, W]."""
    angle = np.pi * (labels_N * GOLDEN**2 % 1) + random.normal(0, 0.08, len(labels_N))
    waves = 2 + labels_N % 3
    start = random.uniform(0, 2 * np.pi, len(labels_N))
    y, x = np.mgrid[:side, :side] / side
    turn = 2 * np.pi * waves
    across = np.multiply.outer(turn * np.cos(angle), x) + np.multiply.outer(turn * np.sin(angle), y)
    return 0.5 + 0.5 * np.sin(across + start[:, None, None])


def _colours(labels_N: np.ndarray, shift: float) -> np.ndarray:
    """Between 0 and 1, [N, 3]: each label has a hue."""
    hues = ((labels_N * GOLDEN + shift) % 1).tolist()
    return np.array([colorsys.hsv_to_rgb(hue, 0.8, 0.4 + shift) for hue in hues]).reshape(-1, 3)


def write_photographs(paths: list[Path], labels_N: np.ndarray, side: int, *seed: int) -> None:
    """A JPEG of each label: `side` pixels or a few more, higher than wide or the other way."""
    random = np.random.default_rng(seed)
    sizes = side + random.integers(0, 1 + side // 4, (len(paths), 2))
    drawn = pictures(labels_N, side, *seed)
    for path, pixels, size in zip(paths, drawn, sizes.tolist(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "JPEG")
        path.write_bytes(file.getvalue())


def write_class_folders(folder: Path, classes: int, each: int, side: int, *seed: int) -> None:
    """`each` JPEGs in a sub-folder for every class, c0, c1, …"""
    labels_N = np.arange(classes).repeat(each)
    paths = [folder / f"c{label}" / f"{i}.jpg" for i, label in enumerate(labels_N)]
    write_photographs(paths, labels_N, side, *seed)
