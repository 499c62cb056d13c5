"""The paper's fine-tuning as recipes, and one for any folder of images.

What the paper does not say (crops, flips) is as in the authors' vision_transformer, where their
fine-tuning is public.
"""

from collections.abc import Callable
from typing import Any

from mixerkit.spec.mixer import variant
from mixerkit.spec.paper import FINE_TUNING, FineTuning
from mixerkit.spec.recipe import Augment, Data, Evaluate, Init, Optimizer, Recipe, Save, Schedule

TASKS = {
    "imagenet": ("ImageNet", 1000),
    "cifar10": ("CIFAR-10", 10),
    "cifar100": ("CIFAR-100", 100),
    "pets": ("Oxford-IIIT Pets", 37),
    "flowers102": ("Oxford Flowers", 102),
}
SOURCE = "zoo:b16-imagenet21k-google"
LR = 0.03
"""One of the rates that the paper chooses from, for every task."""


def fine_tuning(row: FineTuning) -> Recipe:
    """The recipe of a row of `FINE_TUNING`, from the authors' B/16 of ImageNet-21k."""
    return Recipe(
        name=f"finetune-{row.task}",
        model=variant("B/16", num_classes=TASKS[row.task][1]),
        init=Init(SOURCE),
        data=Data(
            source=row.task, holdout=row.held_out or 0.0, join_validation=True,
            resize="shortest", resize_to=256,
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
        augment=Augment(flip=True, crop="inception", crop_antialias=False),
        optimizer=Optimizer(name="sgd", lr=LR, momentum=0.9, weight_decay=0.0, clip=1.0),
        schedule=Schedule(warmup=f"{row.warmup_steps} steps", decay="cosine"),
        evaluate=Evaluate(every=f"{max(100, row.steps // 20)} steps", batch_size=256),
        save=Save(every=f"{max(100, row.steps // 20)} steps"),
        duration=f"{row.steps} steps",
        batch_size=512,
        accumulation=8,
        precision="bfloat16",
    )  # fmt: skip


def finetune() -> Recipe:
    """Any stored Mixer, fine-tuned on a folder of images: `mixer finetune SOURCE --data FOLDER`.

    The paper's way (SGD, a head of zeros, cosine decay, no weight decay) with a batch that suits
    small folders. Model, image size and the preparation of images are those of the weights.
    """
    return Recipe(
        name="finetune",
        model=variant("B/16"),
        init=Init(SOURCE, enlargement="resample"),
        data=Data(
            source="photos", holdout=0.15, resize="shortest", resize_to=256,
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
        augment=Augment(flip=True, crop="inception", crop_area=(0.35, 1.0)),
        optimizer=Optimizer(name="sgd", lr=LR, momentum=0.9, weight_decay=0.0, clip=1.0),
        schedule=Schedule(warmup="10 %", decay="cosine"),
        duration="20 epochs",
        batch_size=64,
    )  # fmt: skip


def _maker(row: FineTuning) -> Callable[[], Recipe]:
    def make() -> Recipe:
        return fine_tuning(row)

    rates = ", ".join(f"{rate:g}" for rate in row.lrs)
    make.__doc__ = f"""The paper's fine-tuning of a pre-trained Mixer on {TASKS[row.task][0]}.

    `mixer finetune SOURCE --recipe finetune-{row.task} --data.root FOLDER`. The authors try rates
    of {rates} on {row.held_out:.0%} of the training images held out, then train on all of them.
    There is no result of ours.
    """
    return make


PAPER_RECIPES: dict[str, Callable[[], Recipe]] = {
    f"finetune-{row.task}": _maker(row) for row in FINE_TUNING if row.task in TASKS
}


def published_settings(name: str) -> dict[str, dict[str, Any]]:
    """Where published → setting → value, for a name out of `PAPER_RECIPES`."""
    row = next(row for row in FINE_TUNING if name == f"finetune-{row.task}")
    return {
        "paper, section 3": {
            "model.image_size": 224,
            "duration": f"{row.steps} steps",
            "batch_size": 512,
            "optimizer.name": "sgd",
            "optimizer.lr": " or ".join(f"{rate:g}" for rate in row.lrs),
            "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 0.0,
            "optimizer.clip": 1.0,
            "schedule.warmup": f"{row.warmup_steps} steps",
            "schedule.decay": "cosine",
            "data.holdout": row.held_out,
            "data.resize": "shortest",
            "data.resize_to": 256,
            "loss.kind": "softmax",
            "init.head": "fresh",
        },
    }
