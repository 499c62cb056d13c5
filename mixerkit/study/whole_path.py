"""`mixer bench whole-path`: evaluation and fine-tuning of B/16 at 224 px on photographs in files.

The weights are fresh: accuracy means nothing here. What is measured is how many images a second go
the whole way from JPEG files, how much memory that takes, and what decoding costs: its share of the
processors' time, and the share of the time in which the model waits for it. Every trial is a fresh
process; what one trial decodes and prepares is done once more without the model, and its processor
time taken alone.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mixerkit.benchmark.measure import in_fresh_process, peak_memory
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.pretrained import save_pretrained
from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.sources import ImageSplit, open_source
from mixerkit.device import GIB
from mixerkit.evaluation.features import features_of
from mixerkit.evaluation.passes import batch_for, passes
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.fine_tuning import finetune
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess, preprocess_for
from mixerkit.spec.recipe import Evaluate, Init, Recipe, Save
from mixerkit.study.photographs import PER_CLASS, QUALITY, SIZE, imagenet_of, photographs
from mixerkit.training.loop import train

Say = Callable[[str], None]

MODEL, QUICK_MODEL = "B/16", "S/32"
ROUNDS, QUICK_ROUNDS = 3, 1
QUICK_PER_CLASS = 2
STEPS, BATCH = 6, 16
"""Of fine-tuning, in each trial."""
PARTS = ("evaluate", "features", "finetune")
TRIAL = "from mixerkit.study.whole_path import trial; trial({part!r}, {folder!r})"


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Each part in interleaved fresh processes, written to `out`."""
    label, rounds = (QUICK_MODEL, QUICK_ROUNDS) if quick else (MODEL, ROUNDS)
    per_class = QUICK_PER_CLASS if quick else PER_CLASS
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        imagenet_of(folder, photographs(), per_class)
        save_pretrained(fresh(label, folder), folder / "model")
        for number in range(rounds):
            for part, trials in found.items():
                trials.append(in_fresh_process(TRIAL.format(part=part, folder=str(folder))))
                say(f"round {number + 1} of {rounds}: {_told(part, trials[-1])}")
        split = images_of(folder, "train")
    rows = [_row(part, trials) for part, trials in found.items()]
    write_results(
        out,
        name="whole-path",
        command="mixer bench whole-path" + (" --quick" if quick else ""),
        settings={
            "model": label,
            "image_size": 224,
            "classes": len(split.class_names),
            "images_of_each_split": len(split),
            "width": SIZE[0],
            "height": SIZE[1],
            "jpeg_quality": QUALITY,
            "rounds": rounds,
            "threads": torch.get_num_threads(),
        },
        rows=rows,
    )
    return rows


def recipe_for(folder: Path, config: MixerConfig) -> Recipe:
    """A few steps of fine-tuning on the photographs of `folder`, in the way of any folder."""
    start, steps = finetune(), f"{STEPS} steps"
    return replace(
        start,
        model=config,
        init=Init(str(folder / "model")),
        data=replace(start.data, source="imagenet", root=str(folder), holdout=0.0, memory=0.0),
        evaluate=Evaluate(every="100000 steps", test=False),
        save=Save(every="100000 steps"),
        duration=steps,
        batch_size=BATCH,
        compile="off",
    )


def fresh(label: str, folder: Path) -> MlpMixer:
    """A model with random weights that knows the classes of the photographs in `folder`."""
    names = images_of(folder, "train").class_names
    torch.manual_seed(0)
    model = MlpMixer(variant(label, num_classes=len(names)))
    model.preprocess = preprocess_for(recipe_for(folder, model.config), names)
    return model


def images_of(folder: Path, name: str) -> ImageSplit:
    """The split `name` of the photographs."""
    split = getattr(open_source("imagenet", str(folder)), name)
    assert isinstance(split, ImageSplit)
    return split


def _told(part: str, found: dict[str, Any]) -> str:
    return (
        f"{part}: {found['images'] / found['seconds']:.1f} images/s, "
        f"decoding {found['decoding_share']:.1%} of the processors' time"
    )


def _row(part: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the trials."""

    def middle(name: str) -> float | None:
        values = [trial[name] for trial in trials if trial.get(name) is not None]
        return median(values) if values else None

    return {
        "part": part,
        "images": trials[0]["images"],
        "batch_size": trials[0]["batch_size"],
        "images_per_second": median(trial["images"] / trial["seconds"] for trial in trials),
        "peak_growth_gib": middle("peak_growth_gib"),
        "decoding_share": middle("decoding_share"),
        "waiting": middle("waiting"),
    }


def trial(part: str, name: str) -> None:
    """Print what one part takes, as JSON; called in a process of its own."""
    folder = Path(name)
    part_of: dict[str, Callable[[Path], dict[str, Any]]] = {
        "evaluate": _evaluate,
        "features": _features,
        "finetune": _finetune,
    }
    found: dict[str, Any] = {}

    def once() -> None:
        start = time.process_time()
        found.update(part_of[part](folder))
        found["processor_seconds"] = time.process_time() - start

    growth = peak_memory(once)
    found["peak_growth_gib"] = None if growth is None else growth / GIB
    found["decoding_share"] = _decoding(part, folder) / found["processor_seconds"]
    print(json.dumps(found))


def _stored(folder: Path) -> tuple[MlpMixer, Preprocess]:
    model = load(folder / "model")
    assert model.preprocess
    return model, model.preprocess


def _loader(folder: Path, split: str, preprocess: Preprocess, batch: int) -> EvaluationLoader:
    images = images_of(folder, split)
    return EvaluationLoader(images, preprocess, batch_size=batch, memory=0.0)


def _evaluate(folder: Path) -> dict[str, Any]:
    """As `mixer evaluate --on imagenet` goes over the validation images."""
    model, preprocess = _stored(folder)

    def loader_of(size: int) -> EvaluationLoader:
        return _loader(folder, "test", preprocess, size)

    found = passes(model, loader_of, batch_for(model.config), lambda done: None)
    return {
        "images": len(found.labels),
        "seconds": found.seconds,
        "waiting": found.waiting,
        "batch_size": found.batch_size,
    }


def _features(folder: Path) -> dict[str, Any]:
    """As `mixer evaluate --protocol fewshot` takes the features of the training images."""
    model, preprocess = _stored(folder)
    size = batch_for(model.config)
    loader = _loader(folder, "train", preprocess, size)
    start = time.perf_counter()
    features = features_of(model.eval(), loader)
    seconds = time.perf_counter() - start
    return {"images": len(features), "seconds": seconds, "batch_size": size}


def _finetune(folder: Path) -> dict[str, Any]:
    """Steps as `mixer finetune` makes them; those before the first row of timings, which start
    everything, are left out."""
    with tempfile.TemporaryDirectory() as temporary:
        result = train(recipe_for(folder, _stored(folder)[0].config), Path(temporary) / "run")
        with RunFolder.open(result.run) as run:
            first, *_, last = (row for row in run.timings() if "waiting" in row)
    return {
        "images": (last["step"] - first["step"]) * BATCH,
        "seconds": last["seconds"] - first["seconds"],
        "waiting": last["waiting"],
        "batch_size": BATCH,
    }


def _decoding(part: str, folder: Path) -> float:
    """Processor seconds of reading, decoding and preparing the images of a part, without its
    model."""
    model, preprocess = _stored(folder)
    recipe = recipe_for(folder, model.config)
    start = time.process_time()
    if part == "finetune":
        augmented = TrainLoader(
            images_of(folder, "train"),
            preprocess,
            recipe.augment,
            batch_size=BATCH,
            seed=0,
            memory=0.0,
        )
        for number, _ in enumerate(augmented.epoch(0)):
            if number + 1 == STEPS:
                break
    else:
        for _ in _loader(folder, "test" if part == "evaluate" else "train", preprocess, BATCH):
            pass
    return time.process_time() - start
