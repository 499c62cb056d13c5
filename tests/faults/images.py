"""Broken images (F9): the same ones are listed for any number of workers, and nothing else."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.fault import Fault, Trial
from tests.faults.photographs import (
    BROKEN,
    CHANGES,
    NOT_FILES,
    WHOLE,
    bombs,
    large_images,
    photographs,
)

ROOT = Path(__file__).parents[2]
IMAGES = 100
ENDINGS = (".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".JPEG")
WITH_LARGE = 10  # one folder in so many: reading them takes most of the time
MEGABYTES = 1000
SECONDS = 600


@dataclass(frozen=True)
class Material:
    """What the folders are made from."""

    photographs: list[bytes]
    bombs: dict[str, bytes]


def prepare(_: Path) -> Material:
    return Material(photographs(), bombs())


def fill(trial: Trial, folder: Path) -> dict[str, str]:
    """`IMAGES` files of every kind; file name → what must become of it."""
    material, random = trial.shared, trial.random
    verdicts: dict[str, str] = {}

    def place(verdict: str) -> Path:
        name = f"{len(verdicts):03}{random.choice(ENDINGS)}"
        verdicts[name] = verdict
        return folder / name

    for content in random.sample(list(material.bombs.values()), 5):
        place(BROKEN).write_bytes(content)
    for make in random.sample(NOT_FILES, 3):
        make(place(BROKEN))
    if trial.number % WITH_LARGE == WITH_LARGE - 1:
        for content in random.sample(list(large_images().values()), 3):
            place(WHOLE).write_bytes(content)
    while len(verdicts) < IMAGES:
        change, verdict = random.choice(list(CHANGES.values()))
        place(verdict).write_bytes(change(random.choice(material.photographs), random))
    return verdicts


def read_in_a_process(folder: Path) -> dict[str, Any]:
    """What `tests.faults.reading` finds; a crash or a hang is an error here."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.reading", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def broken_images(trial: Trial) -> None:
    folder = trial.folder / "images"
    folder.mkdir()
    verdicts = fill(trial, folder)
    found = read_in_a_process(folder)
    alone = found["alone"]
    assert [one["file"] for one in alone] == sorted(verdicts)
    listed = [(i, one["reason"]) for i, one in enumerate(alone) if "reason" in one]
    digests = {str(i): one["digest"] for i, one in enumerate(alone) if "digest" in one}
    for together in found["together"]:
        assert [(row["index"], row["reason"]) for row in together["rows"]] == listed
        assert together["digests"] == digests
    for one in alone:
        verdict = verdicts[one["file"]]
        assert verdict != BROKEN or "reason" in one, one
        assert verdict != WHOLE or "digest" in one, one
    assert not found["refused"], f"Pillow alone does not read {found['refused']}"
    assert found["grown"] < MEGABYTES, f"{found['grown']:.0f} MB"


FAULTS = (
    Fault(
        "F9",
        "photographs cut, flipped, with damaged heads or junk in EXIF; decompression bombs, pipes, "
        "folders, links that lead nowhere or in a circle, odd modes, wrong formats and huge files "
        "among them",
        "the same images are listed, for the same reasons, by 1, 2 and one worker per processor "
        "as when each is opened alone, and all others are read alike; no crash, no hang, memory "
        "grows by less than 1 GB",
        trials=50,
        short=2,
        run=broken_images,
        prepare=prepare,
        counts=f"folders of {IMAGES} images",
    ),
)
