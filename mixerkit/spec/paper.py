"""What was published, as data: tables and claims of Tolstikhin et al. 2021 (arXiv 2105.01601v4).

Accuracies are in percent, throughput in images per second and TPUv3 core, cost in TPUv3
core-days; None where the paper prints a dash. "Avg 5" is the mean over ImageNet, CIFAR-10,
CIFAR-100, Oxford-IIIT Pets and Flowers-102.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedVariant:
    """A row of table 1 (224 px), with the exact counts that follow from it."""

    label: str
    patch: int
    width: int
    depth: int
    token_width: int
    channel_width: int
    patches: int
    parameters: int
    """With a head for 1000 classes."""
    parameters_without_head: int
    parameters_21843_classes: int | None
    """With the ImageNet-21k head; None where no such model exists."""
    gmacs: float
    """10⁹ multiply-adds for one image, 1000 classes."""


# Table 1. S/8 is not in the paper; a checkpoint of it was published later.
VARIANTS = (
    PublishedVariant("S/32", 32, 512, 8, 256, 2048, 49, 19_104_624, 18_591_624, 29_797_083, 1.002),
    PublishedVariant("S/16", 16, 512, 8, 256, 2048, 196, 18_528_264, 18_015_264, 29_220_723, 3.777),
    PublishedVariant("S/8", 8, 512, 8, 256, 2048, 784, 20_646_504, 20_133_504, None, 14.875),
    PublishedVariant("B/32", 32, 768, 12, 384, 3072, 49, 60_293_428, 59_524_428, 76_321_695, 3.238),
    PublishedVariant(
        "B/16", 16, 768, 12, 384, 3072, 196, 59_880_472, 59_111_472, 75_908_739, 12.602
    ),
    PublishedVariant(
        "L/32", 32, 1024, 24, 512, 4096, 49, 206_939_264, 205_914_264, 228_303_339, 11.253
    ),
    PublishedVariant(
        "L/16", 16, 1024, 24, 512, 4096, 196, 208_196_168, 207_171_168, 229_560_243, 44.548
    ),
    PublishedVariant(
        "H/14", 14, 1280, 32, 640, 5120, 256, 432_350_952, 431_069_952, 459_050_835, 120.990
    ),
)


@dataclass(frozen=True)
class PublishedResult:
    """A row of table 2 or 3."""

    model: str
    data: str
    """Pre-training data: "i1k", "i21k" (ImageNet) or "JFT"."""
    imagenet: float
    real: float | None
    """ImageNet with the cleaned-up ReaL labels."""
    average5: float | None
    images_per_second: int
    core_days: float
    epochs: int | None = None
    """Of pre-training; table 2 does not give it."""
    image_size: int | None = 224
    """At fine-tuning, pixels; None where the tables do not give it."""
    vtab: float | None = None


# Table 2: the largest models; Mixer at 448 px.
LARGEST = (
    PublishedResult("HaloNet", "i21k", 85.8, None, None, 120, 100, None, None),
    PublishedResult("Mixer-L/16", "i21k", 84.15, 87.86, 93.91, 105, 410, None, 448, 74.95),
    PublishedResult("ViT-L/16", "i21k", 85.30, 88.62, 94.39, 32, 180, None, None, 72.72),
    PublishedResult("BiT-R152x4", "i21k", 85.39, None, 94.04, 26, 940, None, None, 70.64),
    PublishedResult("NFNet-F4+", "JFT", 89.2, None, None, 46, 1860, None, None),
    PublishedResult("Mixer-H/14", "JFT", 87.94, 90.18, 95.71, 40, 1010, None, 448, 75.33),
    PublishedResult("BiT-R152x4", "JFT", 87.54, 90.54, 95.33, 26, 9900, None, None, 76.29),
    PublishedResult("ViT-H/14", "JFT", 88.55, 90.72, 95.97, 15, 2300, None, None, 77.63),
)

# Table 3: by pre-training data; 224 px unless said.
RESULTS = (
    PublishedResult("Mixer-B/16", "i1k", 76.44, 82.36, 88.33, 1384, 10, 300),
    PublishedResult("ViT-B/16", "i1k", 79.67, 84.97, 90.79, 861, 20, 300),
    PublishedResult("Mixer-L/16", "i1k", 71.76, 77.08, 87.25, 419, 40, 300),
    PublishedResult("ViT-L/16", "i1k", 76.11, 80.93, 89.66, 280, 50, 300),
    PublishedResult("Mixer-B/16", "i21k", 80.64, 85.80, 92.50, 1384, 150, 300),
    PublishedResult("ViT-B/16", "i21k", 84.59, 88.93, 94.16, 861, 180, 300),
    PublishedResult("Mixer-L/16", "i21k", 82.89, 87.54, 93.63, 419, 410, 300),
    PublishedResult("ViT-L/16", "i21k", 84.46, 88.35, 94.49, 280, 550, 300),
    PublishedResult("Mixer-L/16", "i21k", 83.91, 87.75, 93.86, 105, 410, 300, 448),
    PublishedResult("Mixer-S/32", "JFT", 68.70, 75.83, 87.13, 11489, 10, 5),
    PublishedResult("Mixer-B/32", "JFT", 75.53, 81.94, 90.99, 4208, 50, 7),
    PublishedResult("Mixer-S/16", "JFT", 73.83, 80.60, 89.50, 3994, 30, 5),
    PublishedResult("BiT-R50x1", "JFT", 73.69, 81.92, None, 2159, 80, 7),
    PublishedResult("Mixer-B/16", "JFT", 80.00, 85.56, 92.60, 1384, 80, 7),
    PublishedResult("Mixer-L/32", "JFT", 80.67, 85.62, 93.24, 1314, 120, 7),
    PublishedResult("BiT-R152x1", "JFT", 79.12, 86.12, None, 932, 140, 7),
    PublishedResult("BiT-R50x2", "JFT", 78.92, 86.06, None, 890, 140, 7),
    PublishedResult("BiT-R152x2", "JFT", 83.34, 88.90, None, 356, 580, 14),
    PublishedResult("Mixer-L/16", "JFT", 84.05, 88.14, 94.51, 419, 230, 7),
    PublishedResult("Mixer-L/16", "JFT", 84.82, 88.48, 94.77, 419, 450, 14),
    PublishedResult("ViT-L/16", "JFT", 85.63, 89.16, 95.21, 280, 650, 14),
    PublishedResult("Mixer-H/14", "JFT", 86.32, 89.14, 95.49, 194, 1010, 14),
    PublishedResult("BiT-R200x3", "JFT", 84.73, 89.58, None, 141, 1780, 14),
    PublishedResult("Mixer-L/16", "JFT", 86.78, 89.72, 95.13, 105, 450, 14, 448),
    PublishedResult("ViT-H/14", "JFT", 86.65, 89.56, 95.57, 87, 2300, 14),
    PublishedResult("ViT-L/16", "JFT", 87.76, 90.54, 95.63, 32, 650, 14, 512),
)


def published(table: tuple[PublishedResult, ...], model: str, data: str) -> PublishedResult:
    """The first row of `table` for this model and pre-training data."""
    return next(row for row in table if (row.model, row.data) == (model, data))


@dataclass(frozen=True)
class Pretraining:
    """A row of table 4. Common to all: 224 px, Adam with betas (0.9, 0.999), batch 4096,
    10 000 steps of linear warm-up, linear decay, gradients clipped to global norm 1."""

    family: str
    """"S", "B", "L" or "H", whatever the patch."""
    data: str
    epochs: tuple[int, ...]
    lr: float
    weight_decay: float
    randaugment: int | None = None
    """Magnitude m of two operations; None is off."""
    mixup: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0


PRETRAINING = (
    Pretraining("B", "i1k", (300,), 0.001, 0.1, 15, 0.5, 0.0, 0.1),
    Pretraining("L", "i1k", (300,), 0.001, 0.1, 15, 0.5, 0.0, 0.1),
    Pretraining("B", "i21k", (300,), 0.001, 0.1, 10, 0.2, 0.0, 0.1),
    Pretraining("L", "i21k", (300,), 0.001, 0.1, 20, 0.5, 0.0, 0.1),
    Pretraining("S", "JFT", (5,), 0.003, 0.03),
    Pretraining("B", "JFT", (7,), 0.003, 0.03),
    Pretraining("L", "JFT", (7, 14), 0.001, 0.03),
    Pretraining("H", "JFT", (14,), 0.001, 0.03),
)


@dataclass(frozen=True)
class FineTuning:
    """How a pre-trained model is fine-tuned on one task. Common to all: SGD with momentum 0.9,
    batch 512, cosine decay after linear warm-up, clipping at 1, no weight decay, a head of
    zeros, 224 px. The best rate on the held-out share is then trained on everything."""

    task: str
    steps: int
    warmup_steps: int | None
    """None: not given for this task."""
    lrs: tuple[float, ...]
    held_out: float | None
    """Share of the training images on which the rate is chosen; None: not given."""


FINE_TUNING = (
    FineTuning("imagenet", 20_000, 500, (0.003, 0.01, 0.03, 0.06), 0.01),
    FineTuning("cifar10", 10_000, 500, (0.003, 0.01, 0.03, 0.06), 0.02),
    FineTuning("cifar100", 10_000, 500, (0.003, 0.01, 0.03, 0.06), 0.02),
    FineTuning("pets", 500, 100, (0.003, 0.01, 0.03, 0.06), 0.1),
    FineTuning("flowers102", 500, 100, (0.003, 0.01, 0.03, 0.06), 0.1),
    FineTuning("vtab", 2_500, None, (0.003, 0.01, 0.03), None),
)


@dataclass(frozen=True)
class Claim:
    """Something the paper says, in our words, with the figure it gives for it."""

    name: str
    says: str
    value: float | None
    """In `unit`; None for a claim about a trend."""
    unit: str
    source: str
    in_tables: float | None = None
    """The same figure computed from the printed tables, where the two differ."""
    needs: str = ""
    """What it would take to test it, where no small experiment can."""


READ = "`mixer evaluate zoo:b16-imagenet1k-google --data.source imagenet` tests it"
PRETRAIN = "{} and about {:,} TPUv3 core-days"
JFT = "JFT-300M, which was never published, and about {:,} TPUv3 core-days"
OTHERS = "training that model on ImageNet, or its authors' weights, which are not to be had"

CLAIMS = (
    Claim(
        "large-i21k", "Mixer-L/16 from ImageNet-21k, at 448 px", 84.15, "% top-1", "table 2",
        needs=PRETRAIN.format("ImageNet-21k, ImageNet", 410) + ", or fine-tuning the published "
        "weights on ImageNet",
    ),
    Claim(
        "huge-jft", "Mixer-H/14 from JFT, at 448 px", 87.94, "% top-1", "table 2",
        needs=JFT.format(1010),
    ),
    Claim(
        "over-bit", "Mixer-H/14 above BiT-R152x4", 0.5, "points", "section 3.1", 0.40,
        needs=JFT.format(1010 + 9900),
    ),
    Claim(
        "under-vit", "Mixer-H/14 below ViT-H/14", 0.5, "points", "section 3.1", 0.61,
        needs=JFT.format(1010 + 2300),
    ),
    Claim("speed-vit", "speed of Mixer-H/14 over ViT-H/14", 2.5, "×", "section 3.1", 40 / 15),
    Claim(
        "speed-bit", "speed of Mixer-H/14 over BiT-R152x4: almost", 2.0, "×", "section 3.1", 40 / 26
    ),
    Claim(
        "from-scratch", "Mixer-B/16 on ImageNet alone", 76.44, "% top-1", "table 3",
        needs=f"ImageNet's 50,000 validation images ({READ})",
    ),
    Claim(
        "like-resnet50", "from scratch, Mixer-B/16 is about a ResNet-50", None, "trend",
        "section 3.1", needs="ImageNet, on which both are trained alike",
    ),
    Claim("botnet", "BotNet on ImageNet alone", 84.7, "% top-1", "section 3.1", needs=OTHERS),
    Claim("nfnet", "NFNet on ImageNet alone", 86.5, "% top-1", "section 3.1", needs=OTHERS),
    Claim("speed-b16", "speed of Mixer-B/16 over ViT-B/16", 1384 / 861, "×", "table 3"),
    Claim("speed-l16", "speed of Mixer-L/16 over ViT-L/16", 419 / 280, "×", "table 3"),
    Claim("sizes", "parameters of table 1's models", None, "18 to 431 million", "table 1"),
    Claim("overfits", "without extra regularisation Mixer overfits", None, "trend", "section 3.1"),
    Claim("compute", "pre-training compute predicts transfer", None, "trend", "figure 2"),
    Claim("more-data", "more pre-training data helps Mixer most", None, "trend", "section 3.3"),
    Claim(
        "linear-cost", "cost grows linearly with patches, attention's faster", None, "trend",
        "section 2",
    ),
    Claim("patch-order", "patch and pixel order do not matter", None, "trend", "section 3.4"),
    Claim("pixels-order", "one pixel shuffle hurts ResNet more", None, "trend", "section 3.4"),
    Claim("pixels-mixer", "Mixer falls under one pixel shuffle", 45, "% drop", "section 3.4"),
    Claim("pixels-resnet", "ResNet falls under one pixel shuffle", 75, "% drop", "section 3.4"),
    Claim("local-global", "first layers hold global and local units", None, "trend", "section 3.5"),
    Claim("pairs", "many units have one of opposite phase", None, "trend", "section 3.5"),
    Claim("deeper", "deeper units show no clear structure", None, "trend", "section 3.5"),
    Claim("untied", "token mixing for each channel does not help", None, "trend", "appendix A"),
    Claim(
        "grouped", "token mixing for groups of channels does not help", None, "trend", "appendix A"
    ),
    Claim(
        "pyramids", "pyramids do not help", None, "trend", "appendix A",
        needs="Mixers with fewer and wider tokens in later blocks, which mixerkit does not have",
    ),
)  # fmt: skip
"""What is tested by whom: `study/experiments.py`."""
