"""A contender in a process of its own, which opens it, computes one batch of noise and ends:
`python -m mixerkit.benchmark.alone JSON`. Only what the contender needs is imported.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixerkit.benchmark.deployed import Peer, open_peer
from mixerkit.benchmark.peer_settings import Setting
from mixerkit.inference.engine import Predictor
from mixerkit.inference.runtimes import Run
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.strict import from_dict, to_dict

Shape = tuple[int, ...]
Precision = Literal["auto", "float32", "bfloat16"]


def command_of_peer(
    peer: Peer, file: Path, config: MixerConfig, setting: Setting, images: Shape
) -> list[str]:
    """The command line for a peer, and images of that shape [B, I, H, W]."""
    about = {"peer": asdict(peer), "config": to_dict(config), "setting": asdict(setting)}
    return _command(about | {"file": str(file), "images": images})


def command_of_ours(file: Path, precision: Precision, images: Shape) -> list[str]:
    """The command line for our engine on an exported file."""
    return _command({"file": str(file), "precision": precision, "images": images})


def _command(about: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "mixerkit.benchmark.alone", json.dumps(about)]


def _opened(about: dict[str, Any]) -> Run:
    file = Path(about["file"])
    if "peer" not in about:
        return Predictor(file, about["precision"]).outputs
    peer = Peer(**about["peer"])
    config = from_dict(MixerConfig, about["config"])
    return open_peer(peer, file, config, Setting(**about["setting"]))


def main(words: list[str]) -> None:
    """One batch."""
    about = json.loads(words[0])
    images = np.random.default_rng(0).standard_normal(about["images"], np.float32)
    _opened(about)(images)


if __name__ == "__main__":
    main(sys.argv[1:])
