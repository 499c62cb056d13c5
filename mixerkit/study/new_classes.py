"""`mixer bench transfer`: what is learned of seven kinds of clothes helps with three others.

A Mixer and a ViT of equal size are trained on seven classes of Fashion-MNIST. Then the three
classes that they have never seen are learned from few images: by a linear probe on their frozen
features, beside features of random weights and raw pixels; and by fine-tuning, beside training from
random weights. Measured on training images that were held out; the test set is not read.

Letters: N images, C features.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.checkpoint.files import write_atomic
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.sources import ImageSplit, opened
from mixerkit.evaluation.fewshot import Protocol, draw, measure
from mixerkit.evaluation.interval import half_width
from mixerkit.insight.canvas import can_draw
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.preprocess import preprocess_for
from mixerkit.spec.recipe import Evaluate, Optimizer, Recipe, Save
from mixerkit.study.named import THREE, base
from mixerkit.study.new_classes_figure import figure
from mixerkit.study.peers import peer_of
from mixerkit.training.loop import train

Say = Callable[[str], None]
Rows = list[dict[str, Any]]

NEW = ("Pullover", "Coat", "Shirt")
"""Classes that are hard to tell apart; the seven others are learned first."""
SEEDS, SHOTS, DRAWS = (0, 1, 2), (1, 5, 10, 25), 3
HELD_OUT, PER_CLASS = 3000, 100
"""Images that are measured, and images of each new class that fine-tuning sees."""
STEPS, BATCH, RATE = 300, 64, 1e-3
"""Of fine-tuning and of training on as few images from scratch, by AdamW: chosen for neither."""
MIXER, VIT = "Mixer", "ViT (timm)"


def first(kind: str, seed: int, quick: bool) -> Recipe:
    """Seven classes, as every model of the studies is trained."""
    start = base()
    duration = "5 steps" if quick else start.duration
    changes = THREE["mlp" if kind == MIXER else VIT].get("model", {})
    seven = tuple(name for name in opened(start.data).train.class_names if name not in NEW)
    return replace(
        start,
        name="transfer",
        model=replace(start.model, **changes),
        data=replace(start.data, classes=seven),
        evaluate=Evaluate(every=duration, test=False),
        save=Save(every=duration),
        duration=duration,
        seed=seed,
    )


def second(recipe: Recipe, quick: bool) -> Recipe:
    """Three new classes, few images of each."""
    steps = f"{5 if quick else STEPS} steps"
    data = replace(recipe.data, classes=NEW, holdout=HELD_OUT)
    images = len(opened(data).train)
    return replace(
        recipe,
        data=replace(data, share=PER_CLASS * len(NEW) / images),
        optimizer=Optimizer(name="adamw", lr=RATE, weight_decay=recipe.optimizer.weight_decay),
        evaluate=Evaluate(every=steps, test=False),
        save=Save(every=steps),
        duration=steps,
        batch_size=BATCH,
    )


def fresh(kind: str, recipe: Recipe, classes: int) -> nn.Module:
    """A model with random weights for so many classes."""
    torch.manual_seed(recipe.seed)
    config = replace(recipe.model, num_classes=classes)
    return MlpMixer(config) if kind == MIXER else peer_of("vit", config)


@torch.inference_mode()
def features(model: nn.Module | None, split: ImageSplit, recipe: Recipe) -> np.ndarray:
    """float32 [N, C] of a split: what the head would see, or without a model the pixels."""
    loader = EvaluationLoader(split, preprocess_for(recipe, split.class_names), batch_size=500)
    found = []
    for images, _ in loader:
        if model is None:
            found.append(images.flatten(1))
        elif isinstance(model, MlpMixer):
            found.append(model.eval().features(images))
        else:
            vit: Any = model.eval()
            found.append(vit.forward_head(vit.forward_features(images), pre_logits=True))
    return torch.cat(found).float().numpy()


def probed(what: str, model: nn.Module | None, seed: int, recipe: Recipe) -> Rows:
    """A row for each number of shots: the paper's probes. Every seed has three draws of its own,
    the same for all models, so that intervals over seeds tell what the shots change, too."""
    splits = opened(replace(recipe.data, share=1.0))
    assert splits.validation
    protocol = Protocol(SHOTS, seeds=DRAWS * len(SEEDS))
    drawn = draw(splits.train.labels, NEW, protocol)
    shots = splits.train.subset(drawn.images)
    found = measure(
        protocol,
        drawn,
        features(model, shots, recipe),
        features(model, splits.validation, recipe),
        splits.validation.labels,
    )
    own = range(DRAWS * seed, DRAWS * (seed + 1))
    accuracies = {
        count: [one.accuracy for one in found.probes if one.shots == count and one.seed in own]
        for count in SHOTS
    }
    return [
        {"part": "probe", "what": what, "seed": seed, "shots": count, "accuracy": mean(each)}
        for count, each in accuracies.items()
    ]


def tuned(what: str, model: nn.Module, seed: int, recipe: Recipe, folder: Path) -> Rows:
    """A row: all weights trained on the few images."""
    result = train(recipe, folder, model=model)
    assert result.validation
    accuracy = result.validation.top1
    return [{"part": "fine-tuning", "what": what, "seed": seed, "shots": PER_CLASS,
             "accuracy": accuracy}]  # fmt: skip


def one_seed(seed: int, folder: Path, say: Say, quick: bool) -> Rows:
    """Everything with one seed."""
    rows: Rows = []
    for kind in (MIXER, VIT):
        recipe = first(kind, seed, quick)
        few = second(recipe, quick)
        model = fresh(kind, recipe, len(recipe.data.classes))
        result = train(recipe, folder / f"{kind}-{seed}", model=model)
        assert result.validation
        known = result.validation.top1
        say(f"seed {seed}: {kind} knows seven classes, held-out {known:.1%}")
        rows.append({"part": "seven classes", "what": kind, "seed": seed, "shots": None,
                     "accuracy": known})  # fmt: skip
        rows += probed(f"{kind}, trained on seven classes", model, seed, few)
        if kind == MIXER:
            rows += probed("Mixer, random weights", fresh(kind, few, len(NEW)), seed, few)
            rows += probed("pixels", None, seed, few)
        trained, body = f"{kind}, trained on seven classes", with_new_head(kind, model, few)
        rows += tuned(trained, body, seed, few, folder / f"{kind}-{seed}-tuned")
        scratch = fresh(kind, few, len(NEW))
        rows += tuned(f"{kind}, random weights", scratch, seed, few, folder / f"{kind}-{seed}-new")
    return rows


def with_new_head(kind: str, model: nn.Module, recipe: Recipe) -> nn.Module:
    """The same body with a head of zeros for the new classes."""
    result = fresh(kind, recipe, len(NEW))
    body = {name: value for name, value in model.state_dict().items() if "head." not in name}
    result.load_state_dict(body, strict=False)
    for parameter in result.get_submodule("head").parameters():
        nn.init.zeros_(parameter)
    return result


def averaged(rows: Rows) -> Rows:
    """Means over the seeds, with half of their 95 % intervals."""
    found = []
    for key in dict.fromkeys((row["part"], row["what"], row["shots"]) for row in rows):
        some = [row for row in rows if (row["part"], row["what"], row["shots"]) == key]
        each = [row["accuracy"] for row in some]
        part, what, shots = key
        found.append(
            {
                "part": part,
                "what": what,
                "shots": shots,
                "accuracy": mean(each),
                "half_width": half_width(each),
                "each": each,
            }
        )
    return found


def study(out: Path, say: Say, quick: bool = False) -> Rows:
    """Everything, written to `out` with a figure beside it."""
    rows: Rows = []
    seeds = SEEDS[:1] if quick else SEEDS
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            rows += one_seed(seed, Path(temporary), say, quick)
    found = averaged(rows)
    for row in found:
        half = f" ± {100 * row['half_width']:.1f}" if row["half_width"] is not None else ""
        few = f", {row['shots']} images of each class" if row["shots"] else ""
        say(f"{row['part']}, {row['what']}{few}: {row['accuracy']:.1%}{half}")
    if can_draw():
        write_atomic(out.with_suffix(".png"), figure(found))
    write_results(
        out,
        name="transfer",
        command="mixer bench transfer" + (" --quick" if quick else ""),
        settings={
            "new_classes": list(NEW),
            "held_out": HELD_OUT,
            "recipes": {
                kind: {"first": asdict(first(kind, 0, quick)),
                       "then": asdict(second(first(kind, 0, quick), quick))}
                for kind in (MIXER, VIT)
            },
            "probe": "ridge of 1024 on standardised features, three draws of the shots a seed",
        },
        rows=found,
    )  # fmt: skip
    return found
