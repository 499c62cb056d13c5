"""The paper's pre-training (table 4) as recipes, and what was published of each.

What table 4 does not say is as in big_vision, where the authors' own ImageNet-1k run is public.
"""

import math
from collections.abc import Callable
from typing import Any

from mixerkit.spec.mixer import variant
from mixerkit.spec.paper import PRETRAINING, RESULTS, VARIANTS, Pretraining
from mixerkit.spec.recipe import Augment, Data, Evaluate, Loss, Optimizer, Recipe, Save, Schedule

IMAGENET_1K, IMAGENET_21K, JFT = "i1k", "i21k", "JFT"
LABELS = {
    IMAGENET_1K: ("B/16", "L/16"),
    IMAGENET_21K: ("B/16", "L/16"),
    JFT: ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14"),
}
SUFFIXES = {IMAGENET_1K: "imagenet1k", IMAGENET_21K: "imagenet21k", JFT: "jft"}
SOURCES = {IMAGENET_1K: "imagenet", IMAGENET_21K: "imagenet21k", JFT: "images"}
WORDS = {
    IMAGENET_1K: "ImageNet-1k alone",
    IMAGENET_21K: "ImageNet-21k",
    JFT: "a large folder of images, as on JFT-300M",
}
DATA_SETS = {IMAGENET_1K: "ImageNet-1k", IMAGENET_21K: "ImageNet-21k", JFT: "JFT-300M"}
CLASSES = {IMAGENET_1K: 1_000, IMAGENET_21K: 21_843, JFT: 18_291}

IMAGE_SIZE = 224
DEVICE_BATCH = 64
"""Images that shared one draw of mixup: a batch of 4096 on 64 cores."""


def published_row(label: str, data: str) -> Pretraining:
    """The row of table 4 for a variant such as "B/16"."""
    family = label.partition("/")[0]
    return next(row for row in PRETRAINING if (row.family, row.data) == (family, data))


def pretraining(label: str, data: str) -> Recipe:
    """The recipe of table 4 for a variant on "i1k", "i21k" or "JFT"; of two numbers of epochs the
    larger."""
    row = published_row(label, data)
    return Recipe(
        name=name_of(label, data),
        model=variant(
            label,
            num_classes=CLASSES[data],
            dropout=row.dropout,
            drop_path=row.drop_path,
            head_bias=head_bias(CLASSES[data]),
        ),
        data=Data(
            source=SOURCES[data], holdout=0.01, resize="shortest", resize_to=256,
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
        augment=Augment(
            flip=True, crop="inception", crop_antialias=False,
            randaugment=row.randaugment or 0, mixup=row.mixup or 0.0,
            mix_group=DEVICE_BATCH if row.mixup else 0,
        ),
        optimizer=Optimizer(
            name="adamw", lr=row.lr, weight_decay=row.weight_decay, betas=(0.9, 0.999), clip=1.0
        ),
        schedule=Schedule(warmup="10000 steps", decay="linear", final=1e-5),
        loss=Loss("sigmoid"),
        evaluate=Evaluate(every="5000 steps", batch_size=256, test=data == IMAGENET_1K),
        save=Save(every="2000 steps"),
        duration=f"{row.epochs[-1]} epochs",
        batch_size=4096,
        accumulation=64,
        precision="bfloat16",
    )  # fmt: skip


def head_bias(classes: int) -> float:
    """With it, a head of zeros gives each class its share, 1 / `classes`: −6.9 for the 1000 of
    ImageNet, which is the published value."""
    return round(-math.log(classes - 1), 1)


def name_of(label: str, data: str) -> str:
    """Such as "b16-imagenet1k"."""
    return f"{label.replace('/', '').lower()}-{SUFFIXES[data]}"


_LABEL_AND_DATA = {
    name_of(label, data): (label, data) for data, labels in LABELS.items() for label in labels
}


def _maker(label: str, data: str) -> Callable[[], Recipe]:
    def make() -> Recipe:
        return pretraining(label, data)

    make.__doc__ = _described(label, data)
    return make


def _described(label: str, data: str) -> str:
    """What a recipe is, its command, and whose its hardware, time and result are."""
    results = (row for row in RESULTS if (row.model, row.data) == (f"Mixer-{label}", data))
    small = [row for row in results if row.image_size == IMAGE_SIZE]
    authors = max(small, key=lambda row: row.epochs or 0)
    where = "--data.root" if data == IMAGENET_1K else "--data.source"
    return f"""The paper's pre-training of Mixer-{label} on {WORDS[data]}.

    `mixer train {name_of(label, data)} {where} FOLDER`. There is no result of ours. The authors'
    {authors.epochs} epochs of {DATA_SETS[data]} took {authors.core_days:g} TPUv3 core-days and
    gave, fine-tuned, {authors.imagenet:.2f} % top-1 on ImageNet (table 3).
    """


PAPER_RECIPES: dict[str, Callable[[], Recipe]] = {
    name: _maker(*key) for name, key in _LABEL_AND_DATA.items()
}


def published_settings(name: str) -> dict[str, dict[str, Any]]:
    """Where published → setting → value, for a name out of `PAPER_RECIPES`."""
    label, data = _LABEL_AND_DATA[name]
    row, shape = published_row(label, data), next(one for one in VARIANTS if one.label == label)
    settings: dict[str, dict[str, Any]] = {
        "table 1": {
            "model.image_size": IMAGE_SIZE,
            "model.patch_size": shape.patch,
            "model.width": shape.width,
            "model.depth": shape.depth,
            "model.token_width": shape.token_width,
            "model.channel_width": shape.channel_width,
        },
        "table 4": {
            "duration": " or ".join(f"{epochs} epochs" for epochs in row.epochs),
            "batch_size": 4096,
            "optimizer.name": "adamw",
            "optimizer.betas": (0.9, 0.999),
            "optimizer.lr": row.lr,
            "optimizer.weight_decay": row.weight_decay,
            "optimizer.clip": 1.0,
            "schedule.warmup": "10000 steps",
            "schedule.decay": "linear",
            "augment.randaugment": row.randaugment or 0,
            "augment.mixup": row.mixup or 0.0,
            "model.dropout": row.dropout,
            "model.drop_path": row.drop_path,
        },
        "big_vision, on ImageNet-1k": {
            "model.gelu": "tanh",
            "model.norm_eps": 1e-6,
            "model.drop_path_kind": "paper",
            "loss.kind": "sigmoid",
            "loss.label_smoothing": 0.0,
            "schedule.final": 1e-5,
            "augment.crop": "inception",
            "augment.crop_area": (0.05, 1.0),
            "augment.crop_antialias": False,
            "augment.flip": True,
            "augment.randaugment_count": 2,
            "augment.mix_group": "images of a device" if row.mixup else 0,
            "data.mean": (0.5, 0.5, 0.5),
            "data.std": (0.5, 0.5, 0.5),
            "data.holdout": 0.01,
            "data.resize": "shortest",
            "data.resize_to": 256,
        },
    }
    if data == IMAGENET_1K:
        settings["big_vision, on ImageNet-1k"]["model.head_bias"] = -6.9
    return settings
