"""A small run on disk, as training leaves it, made without training."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixerkit.checkpoint.run import RunFolder
from mixerkit.evaluation.accuracy import measure
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Data, Loss, Recipe
from mixerkit.spec.strict import to_dict


def metric_rows(steps: int = 40, per_epoch: int = 10, end: bool = True) -> list[dict[str, Any]]:
    """What a run logs: the loss falls from 2.3, accuracy rises."""
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        where = {"step": step, "epoch": step / per_epoch}
        loss = 0.4 + 1.9 * 0.9**step
        rate = 0.02 * (1 - step / steps)
        rows.append(
            where | {"split": "train", "loss": loss, "learning_rate": rate} | {"gradient_norm": 1.0}
        )
        if step % per_epoch == 0:
            top1 = 0.9 - 0.3 * 0.9**step
            figures = {"top1": top1, "top5": 0.99, "nll": 0.8 * loss, "ece": 0.02}
            rows.append(where | {"split": "validation"} | figures)
    if end:
        rows.append(rows[-1] | {"split": "test", "top1": 0.88, "final": True})
    return rows


def grey_uri(value: int = 90) -> str:
    file = io.BytesIO()
    Image.fromarray(np.full((28, 28), value, np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def evaluation(class_names: list[str]) -> dict[str, Any]:
    """`evaluation.json` of a model that is right most of the time."""
    generator = torch.Generator().manual_seed(1)
    classes = len(class_names)
    labels = torch.arange(40 * classes) % classes
    logits = torch.randn(len(labels), classes, generator=generator)
    logits[torch.arange(len(labels)), labels] += 2.5
    found = measure(logits.softmax(dim=1), labels, class_names)
    wrong = {"index": 3, "true": class_names[0], "predicted": class_names[1]}
    return {
        "figures": {
            "samples": found.samples,
            "top1": found.top1,
            "top5": found.top5,
            "nll": found.nll,
            "ece": found.ece,
        },
        "per_class": to_dict(found.per_class),
        "confusion": found.confusion,
        "class_names": class_names,
        "mistakes": [wrong | {"probability": 0.987, "image": grey_uri()}] * 8,
    }


def make_run(path: Path, class_names: list[str], finished: bool = True, **model: Any) -> RunFolder:
    """A run folder, closed again, with or without what comes at the end."""
    config = variant("N/7", in_channels=1, num_classes=len(class_names), **model)
    recipe = Recipe(
        name="small", model=config, data=Data("pictures"), loss=Loss(label_smoothing=0.05)
    )
    with RunFolder.create(path, recipe) as run:
        for row in metric_rows(end=finished):
            run.log(row)
        timing = {"step": 40, "seconds": 161.4, "images_per_second": 3120.0, "waiting": 0.01}
        run.log_timing(timing)
        run.save_choices({"compile": False, "threads": 2})
        if finished:
            run.save_evaluation("test", evaluation(class_names))
            preprocess = Preprocess(28, 1, "none", class_names=tuple(class_names))
            torch.manual_seed(0)
            run.save_model(MlpMixer(config), preprocess, {})
    return RunFolder.open(path)
