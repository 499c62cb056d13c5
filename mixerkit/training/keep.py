"""What a run leaves behind: measured figures, the most confident mistakes, the model."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.decode import png_data_uri
from mixerkit.data.sources import ImageSplit
from mixerkit.evaluation.accuracy import Accuracy, confident_mistakes
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Recipe

MISTAKES_KEPT = 24


def figures(accuracy: Accuracy) -> dict[str, float]:
    """The headline figures, as they stand in metrics and model descriptions."""
    return {
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "nll": accuracy.nll,
        "ece": accuracy.ece,
    }


def describe_evaluation(
    split: str,
    accuracy: Accuracy,
    found_NK: Tensor,
    data: ImageSplit,
    usable_N: np.ndarray,
    picture: Callable[[int], np.ndarray],
) -> dict[str, Any]:
    """What a run's `evaluation.json` holds: figures, tables, and mistakes with their images.

    `found_NK`: probabilities of the images `usable_N` of the split; `picture`: one of them as the
    model sees it before normalisation, uint8 [I, H, W]."""
    return {
        "split": split,
        "figures": figures(accuracy) | {"samples": accuracy.samples},
        "class_names": list(data.class_names),
        "per_class": [asdict(row) for row in accuracy.per_class],
        "confusion": accuracy.confusion,
        "mistakes": _mistakes(found_NK, data, usable_N, picture),
    }


def _mistakes(
    found_NK: Tensor,
    data: ImageSplit,
    usable_N: np.ndarray,
    picture: Callable[[int], np.ndarray],
) -> list[dict[str, Any]]:
    rows = []
    labels = torch.from_numpy(data.labels[usable_N])
    for place in confident_mistakes(found_NK, labels, MISTAKES_KEPT):
        predicted, index = int(found_NK[place].argmax()), int(usable_N[place])
        rows.append(
            {
                "index": index,
                "true": data.class_names[int(data.labels[index])],
                "predicted": data.class_names[predicted],
                "probability": float(found_NK[place, predicted]),
                "image": png_data_uri(picture(index)),
            }
        )
    return rows


def keep_model(
    run: RunFolder,
    recipe: Recipe,
    model: MlpMixer,
    preprocess: Preprocess,
    measured: dict[str, dict[str, float]],
    step: int,
) -> None:
    """Write `model/`: weights, preprocessing, labels, and where they come from."""
    about = {"recipe": recipe.name, "data": asdict(recipe.data), "step": step, **measured}
    run.save_model(model, preprocess, about)
