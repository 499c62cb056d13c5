"""Small pictures that every format can hold."""

from pathlib import Path

import numpy as np
from PIL import Image


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """Grey values that differ in every row and column, smooth enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    return (40 + 4 * y + 3 * x).astype(np.uint8)


def colour() -> np.ndarray:
    return np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]], 2)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path
