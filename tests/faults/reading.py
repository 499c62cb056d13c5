"""A folder of images read in every way, in a process of its own: prints what came out as JSON.

python -m tests.faults.reading FOLDER reads its files alone and by 1, 2 and one thread per
processor, and tells the memory that this took.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mixerkit.data.decode import BrokenImage, fit, read
from mixerkit.data.pixels import Pixels, Reading
from mixerkit.data.quarantine import Quarantine
from mixerkit.data.splits import ImageSplit
from mixerkit.spec.preprocess import Preprocess

PREPROCESS = Preprocess(image_size=32)
BATCH = 16
PATIENCE = 300.0  # on the busiest machine too, an image at the limit takes less


def main() -> None:
    warnings.simplefilter("ignore")  # Pillow's, of broken metadata
    paths = tuple(sorted(Path(sys.argv[1]).iterdir()))
    split = ImageSplit("broken", ("a", "b"), np.zeros(len(paths), np.int64), None, paths)
    before = peak_megabytes()
    alone = [read_alone(path) for path in paths]
    together = [read_together(split, workers) for workers in (0, 1, 2)]
    grown = peak_megabytes() - before
    usable = [path for path, found in zip(paths, alone, strict=True) if "digest" in found]
    refused = [path.name for path in usable if not pillow_reads(path)]
    print(json.dumps({"alone": alone, "together": together, "grown": grown, "refused": refused}))


def read_alone(path: Path) -> dict[str, str]:
    """The digest of an image's pixels, or the reason why it has none."""
    try:
        return {"file": path.name, "digest": digest(read(path, PREPROCESS, fit))}
    except BrokenImage as error:
        return {"file": path.name, "reason": error.reason}


def read_together(split: ImageSplit, workers: int) -> dict[str, Any]:
    """The same by the threads of a loader, with a quarantine that allows everything."""
    rows: list[dict[str, Any]] = []
    quarantine = Quarantine(1.0, rows.append)
    digests: dict[int, str] = {}
    numbers = np.arange(len(split))
    batches = np.split(numbers, numbers[BATCH::BATCH])
    reading = Reading(workers, PATIENCE, skip_broken=True)
    for indices, images, unreadable in Pixels(split, PREPROCESS, fit, 0.0).batches(
        batches, reading
    ):
        quarantine.add(split, unreadable)
        digests |= {int(i): digest(image) for i, image in zip(indices, images, strict=True)}
    return {"rows": rows, "digests": digests}


def digest(image_IHW: np.ndarray) -> str:
    return hashlib.sha256(image_IHW.tobytes()).hexdigest()


def pillow_reads(path: Path) -> bool:
    """Whether Pillow alone reads the image too."""
    try:
        with Image.open(path) as image:
            image.load()
            ImageOps.exif_transpose(image)
        return True
    except Exception:
        return False


def peak_megabytes() -> float:
    """The most memory that this process ever had. (`getrusage` counts the parent's too.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    main()
