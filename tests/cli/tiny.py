"""The smallest photographs and recipe that every command can work on."""

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """\
name: tiny
model: {image_size: 16, patch_size: 8, in_channels: 1, num_classes: 2, width: 8, depth: 1, \
token_width: 4, channel_width: 8}
data: {source: photos, holdout: 8, resize: shortest}
augment: {flip: false}
optimizer: {lr: 0.02}
evaluate: {every: 2 steps}
duration: 6 steps
batch_size: 8
compile: off
"""


def make_photos(
    folder: Path, classes: tuple[str, ...] = ("dark", "light"), count: int = 20
) -> None:
    """Grey images of 16 × 16 pixels; each class has a brightness of its own."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 60, (16, 16)) + 180 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02}.png")
