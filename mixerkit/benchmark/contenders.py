"""Who takes part in the bench of inference: our engine in each precision, and timm's model in every
runtime that is installed, each with the setting that is fastest for the batch.

Only those of one precision are open at once: each has the weights in an order of its own, often
twice, which of a large model is more memory than many machines have.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mixerkit.benchmark.alone import Precision, command_of_ours, command_of_peer
from mixerkit.benchmark.best_setting import Chosen, best_setting
from mixerkit.benchmark.cold_start import timed
from mixerkit.benchmark.deployed import PEERS, Peer, absent, not_installed, open_peer
from mixerkit.benchmark.peer_files import peer_file, quietly
from mixerkit.benchmark.peer_pytorch import nothing_compiled_yet
from mixerkit.benchmark.peer_settings import KINDS, Kind, Setting, settings_of
from mixerkit.benchmark.workload import Say
from mixerkit.errors import UserError
from mixerkit.inference.eight_bits import Calibration, Setting as Rounding
from mixerkit.inference.engine import Predictor
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.exported import normalised
from mixerkit.inference.gate import unjudged
from mixerkit.inference.plan import Plan
from mixerkit.inference.runtimes import Run, computes_bfloat16, installed
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import describe_machine, usable_cores

QUICK_PEERS = ("timm eager", "timm onnxruntime", "timm onnxruntime dynamic int8")
NOISE = 8
TRIALS, ENOUGH = 3, 20.0
"""Processes of each contender that start it alone, and seconds after which there is no other."""
PRECISIONS: dict[Kind, Precision] = {"float32": "float32", "bfloat16": "bfloat16", "int8": "auto"}
"""What our engine is told: a file in 8 bits says so itself."""


@dataclass(frozen=True)
class Contender:
    """`run` takes images as the model does, `from_pixels` as decoders give them, both [B, I, H, W];
    `setting`: with which it runs; `slice`: images that are computed at once; `seconds`: about what
    a call takes."""

    name: str
    kind: Kind
    run: Run
    from_pixels: Run
    setting: str
    slice: int
    seconds: float


@dataclass(frozen=True)
class Ours:
    """What our engine is opened on and how, and the exported file that is deployed."""

    kind: Kind
    source: MlpMixer | Path
    plan: Plan
    file: Path


class Contenders:
    """All that are ready, and why the others are not: `left_out`, by name, with those that turned
    out to be `wrong`. Files are in `folder`, and must stay there."""

    def __init__(self, model: MlpMixer, folder: Path, say: Say, quick: bool = False) -> None:
        self.model, self.folder, self.say = model, folder, say
        self.trials = 1 if quick else TRIALS
        self.left_out: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        self.peers: dict[str, Path] = {}
        self.ours: dict[str, Ours] = {}
        self._chosen: dict[tuple[str, int], str] = {}  # settings of peers by name and batch
        for name in QUICK_PEERS if quick else PEERS:
            self._add_peer(name, PEERS[name])
        for kind in PRECISIONS:
            self._add_ours(f"mixerkit {kind}", kind)

    def kinds(self) -> list[Kind]:
        """Precisions in which anybody takes part."""
        here = {PEERS[name].kind for name in self.peers}
        here |= {ours.kind for ours in self.ours.values()}
        return [kind for kind in KINDS if kind in here]

    def at(self, pixels_BIHW: np.ndarray, kind: Kind) -> list[Contender]:
        """Those that compute in that precision, each as it is fastest on so many images."""
        assert self.model.preprocess
        prepare = partial(normalised, preprocess=self.model.preprocess)
        images, batch = prepare(pixels_BIHW), len(pixels_BIHW)
        found = []
        with nothing_compiled_yet():
            for name, file in self.peers.items():
                if PEERS[name].kind == kind:
                    chosen = self._best(name, file, images)
                    self._chosen[name, batch] = chosen.setting
                    from_pixels = partial(_prepared, prepare, chosen.run)
                    about = chosen.setting, batch, chosen.seconds
                    found.append(Contender(name, kind, chosen.run, from_pixels, *about))
        return found + [
            _ready(name, ours, images) for name, ours in self.ours.items() if ours.kind == kind
        ]

    def dismiss(self, name: str, why: str) -> None:
        """It takes part no longer, as what it gives is wrong."""
        self.peers.pop(name, None)
        self.ours.pop(name, None)
        self.wrong[name] = why
        self._leave_out(name, f"wrong: {why}")

    def alone(self, images: tuple[int, ...]) -> list[dict[str, Any]]:
        """What each takes in a process of its own for one batch of that shape, the median of some
        trials in turns: GiB at the worst moment, and seconds from starting Python to the end. One
        that fails so is said to, and has no row."""
        commands = self._commands(images)
        trials: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(self.trials):
            for name in list(trials):
                if sum(seconds for seconds, _ in trials[name]) < ENOUGH:
                    try:
                        trials[name].append(timed(commands[name]))
                    except RuntimeError as error:  # it has its speed all the same
                        self.say(f"  {name}: {error}")
                        del trials[name]
        return [self._alone(name, own) for name, own in trials.items()]

    def _alone(self, name: str, trials: list[tuple[float, float]]) -> dict[str, Any]:
        seconds, peak = (median(figures) for figures in zip(*trials, strict=True))
        count = f"{len(trials)} trial{'s' if len(trials) > 1 else ''}"
        self.say(f"  {name:42} {peak:6.2f} GiB, {seconds:5.1f} s from start to answer, {count}")
        return {"contender": name, "peak_gib": peak, "seconds": seconds, "trials": len(trials)}

    def _commands(self, images: tuple[int, ...]) -> dict[str, list[str]]:
        """Command lines, by name."""
        config, commands = self.model.config, {}
        for name, file in self.peers.items():
            setting = self._settings(name, images[0])[self._chosen[name, images[0]]]
            commands[name] = command_of_peer(PEERS[name], file, config, setting, images)
        for name, ours in self.ours.items():
            precision = PRECISIONS[ours.kind]
            Predictor(ours.file, precision)  # measures how to run a file, once
            commands[name] = command_of_ours(ours.file, precision, images)
        return commands

    def _add_peer(self, name: str, peer: Peer) -> None:
        if missing := absent(*peer.needed):
            return self._leave_out(name, not_installed(missing))
        if peer.kind == "bfloat16" and not multiplies_bfloat16():
            return self._leave_out(name, "this processor does not multiply in bfloat16")
        try:
            self.peers[name] = peer_file(peer.file, self.model, self.folder)
            self.say(f"ready: {name}")
        except UserError as error:  # timm's Mixer has no counterpart of this model
            self._leave_out(name, str(error))

    def _add_ours(self, name: str, kind: Kind) -> None:
        if missing := absent(*_needed(kind)):
            return self._leave_out(name, not_installed(missing))
        if kind == "bfloat16" and not computes_bfloat16():
            return self._leave_out(name, "this processor does not multiply in bfloat16")
        with quietly():
            file = _exported(self.model, kind, self.folder)
            source = file if kind == "int8" else self.model
            plan = Predictor(source, PRECISIONS[kind], again=True).plan  # in today's conditions
            self.ours[name] = Ours(kind, source, plan, file)
        self.say(f"ready: {name}")

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[name] = why
        self.say(f"{name}: {why}")

    def _best(self, name: str, file: Path, images: np.ndarray) -> Chosen:
        """The fastest setting."""
        peer, settings = PEERS[name], self._settings(name, len(images))

        def opened(setting: str) -> Run:
            return open_peer(peer, file, self.model.config, settings[setting])

        with quietly():
            return best_setting(list(settings), opened, images)

    def _settings(self, name: str, batch: int) -> dict[str, Setting]:
        macs = cost(self.model.config).macs * batch
        return settings_of(PEERS[name].runtime, PEERS[name].kind, macs, usable_cores())


def _ready(name: str, ours: Ours, images: np.ndarray) -> Contender:
    """Our engine, opened as it found to be the fastest for so many images."""
    batch, choice = len(images), ours.plan.for_batch(len(images))
    with quietly():
        predictor = Predictor(ours.source, PRECISIONS[ours.kind], plan=ours.plan)
    at_once = min(choice.slice, batch)
    setting = f"{choice.backend}, {at_once} at once"
    chosen = best_setting([setting], lambda _: predictor.outputs, images)
    about = setting, at_once, chosen.seconds
    return Contender(name, ours.kind, chosen.run, predictor.logits, *about)


def _prepared(prepare: Run, run: Run, pixels_BIHW: np.ndarray) -> np.ndarray:
    return run(prepare(pixels_BIHW))


def multiplies_bfloat16() -> bool:
    """Whether this processor does, as far as it says."""
    return "BF16" in describe_machine()["instruction_set"] or computes_bfloat16()


def _needed(kind: Kind) -> tuple[str, ...]:
    """Packages for our engine; in float32 either runtime will do."""
    runtimes: dict[Kind, tuple[str, ...]] = {
        "float32": () if installed() else ("onnxruntime",),
        "bfloat16": ("openvino",),
        "int8": ("onnxruntime",),
    }
    return ("onnx", *runtimes[kind])


def _exported(model: MlpMixer, kind: Kind, folder: Path) -> Path:
    """The file that is deployed; ranges for 8 bits are from noise, which is as fast as photographs.
    What computes in bfloat16 reads the file in float32."""
    assert model.preprocess
    shape = (NOISE, model.config.in_channels, *model.config.image_hw)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    out = folder / f"mixerkit-{'int8' if kind == 'int8' else 'float32'}.onnx"
    if out.exists():
        return out
    rounded = None
    if kind == "int8":
        weights = weights_of(model)
        calibration = Calibration(model.config, weights, model.preprocess, pixels, "onnxruntime")
        rounded = unjudged(calibration, Rounding(smooth=0.5))
    return export(model, out, pixels, rounded=rounded, force=True).files[0]
