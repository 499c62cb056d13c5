"""A training run, as data: every choice that changes the result, in one frozen dataclass.

Durations are texts with a unit: "10 epochs", "5000 steps", "2000000 samples"; a warm-up
may also be a share of the run, "10 %".
"""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from mixerkit.errors import UserError
from mixerkit.spec.choices import check_choices
from mixerkit.spec.mixer import MixerConfig

MOST_THREADS = 1024
UNITS = ("epoch", "step", "sample", "%")
Precision = Literal["float32", "bfloat16", "float64"]


@dataclass(frozen=True)
class Duration:
    """An amount of training: `amount` of a `unit` out of `UNITS`."""

    amount: float
    unit: str

    def steps(self, samples_per_epoch: int, batch_size: int, total: int = 0) -> int:
        """Optimiser steps; `total` is what a share ("%") refers to. An epoch's last partial
        batch is dropped, so an epoch is `samples_per_epoch // batch_size` steps."""
        per_epoch = max(1, samples_per_epoch // batch_size)
        exact = {
            "epoch": self.amount * per_epoch,
            "step": self.amount,
            "sample": self.amount / batch_size,
            "%": self.amount / 100 * total,
        }[self.unit]
        return round(exact) if self.unit == "%" else math.ceil(exact - 1e-9)


def parse_duration(text: str, share_allowed: bool = False) -> Duration:
    """`"10 epochs"` → `Duration(10, "epoch")`; refuses other units and negative amounts.

    With `share_allowed` it may be a share of the run up to 100 %, or zero.
    """
    units = UNITS if share_allowed else UNITS[:-1]
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]+|%)\s*", str(text).lower())
    unit = found[2].removesuffix("s") if found else ""
    if not found or unit not in units:
        share = ', "10 %"' if share_allowed else ""
        raise UserError(
            f'Expected a duration such as "10 epochs", "5000 steps", "200000 samples"'
            f"{share}; found {text!r}."
        )
    amount, most = float(found[1]), 100.0 if unit == "%" else 1e15
    if amount > most or (amount == 0 and not share_allowed):
        raise UserError(f"A duration must be above 0 and at most {most:g}, found {text!r}.")
    return Duration(amount, unit)


@dataclass(frozen=True)
class Init:
    """Weights to start from. They are changed to the recipe's image size, patch size and channels
    (docs/surgery.md); everything else of the model must be theirs."""

    source: str = ""
    """What `load` reads: a run, a checkpoint, a model folder, a file of weights, zoo:NAME. If not
    given, the weights are random."""
    recipe: str = ""
    """A recipe (a name or a YAML file) to train first instead, in the run's own folder start/, on
    the same images with the same seed: a model of the same depth and widths for smaller images, to
    grow from."""
    head: Literal["fresh", "kept"] = "fresh"
    """"kept" goes on with the same classes; "fresh" starts a head from zeros."""
    enlargement: Literal["shared", "dense", "resample"] = "shared"
    """What a whole multiple of the source's image size becomes: tiles that share their token
    mixing, one dense model that computes the same, or as every other size."""
    method: Literal["bilinear", "bicubic", "area", "pinv"] = "area"
    """How token mixing is resampled for other sizes."""

    def __post_init__(self) -> None:
        check_choices(self, "init.")
        if self.source and self.recipe:
            raise UserError("init.source and init.recipe name two beginnings: leave one out.")


@dataclass(frozen=True)
class Data:
    """Where images come from and how they are held out and prepared."""

    source: str = "fashion-mnist"
    """A named set (fashion-mnist, cifar10, cifar100, flowers102, pets, imagenet, and imagenet-v2 to
    measure on), a folder with one sub-folder per class, or a folder of tar archives (WebDataset's
    form, or with folders) or of Parquet files (the Hugging Face hub's form), or the address of such
    files, which are fetched once and kept: https://host/train-{000..127}.tar."""
    root: str = ""
    """Folder in which named sets are looked for first."""
    holdout: float = 0.0
    """Images of the training split kept for validation: a count, or a share below 1. 0 takes
    the source's own validation split."""
    classes: tuple[str, ...] = ()
    """Only the images of these classes, in the source's order; all of them if not given."""
    join_validation: bool = False
    """Whether the source's own validation split belongs to the training images, of which `holdout`
    may then take others."""
    share: float = 1.0
    """Share of the training images that are used, of every class alike, after some were held out:
    for comparing how models learn from few."""
    split_seed: int = 0
    """Fixes which images are held out, and which are used, whatever the training seed."""
    resize: Literal["squash", "shortest", "none"] = "none"
    resize_to: int = 0
    interpolation: Literal["bilinear", "bicubic", "nearest", "box"] = "bilinear"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    workers: int = 0
    """Threads that decode images; 0 takes one per processor."""
    memory: float = 2.0
    """GiB of decoded images that each split may keep; larger splits are decoded in every epoch,
    and so are the training images when augment.crop is "inception"."""
    scaled_decoding: bool = False
    """Whether JPEGs for training are decoded at a half, quarter or eighth of their size where that
    is at least as large as what is made of them: faster, and pixels differ a little
    (`mixer bench loader`). Images that are measured are always decoded whole."""
    max_unreadable: float = 0.01
    """Share of a split's images, rounded up to whole ones, that may be broken: those are left out,
    never replaced, and named in the run's quarantine.jsonl. More stop the run; 0 stops it at the
    first."""
    patience: float = 30.0
    """Seconds without any image read, while one is waited for, before a run saves and stops."""

    def __post_init__(self) -> None:
        check_choices(self, "data.")
        if self.holdout < 0 or (self.holdout > 1 and self.holdout != int(self.holdout)):
            raise UserError(
                f"data.holdout must be a share below 1 or a whole number of images, found "
                f"{self.holdout!r}."
            )
        if not 0 < self.share <= 1:
            raise UserError(f"data.share must be above 0 and at most 1, found {self.share!r}.")
        for name in ("resize_to", "workers", "memory"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name} must not be negative.")
        if not 0 <= self.max_unreadable < 1:
            raise UserError(
                f"data.max_unreadable must be at least 0 and below 1, found "
                f"{self.max_unreadable!r}."
            )
        if not self.patience > 0:
            raise UserError(f"data.patience must be above 0 seconds, found {self.patience!r}.")


@dataclass(frozen=True)
class Augment:
    """Changes made to training images; each is drawn from (seed, epoch, index) alone."""

    flip: bool = True
    """Mirror left-right with probability one half."""
    shift: int = 0
    """Move by up to this many pixels each way, filling with the darkest value."""
    crop: Literal["none", "inception"] = "none"
    """"inception": a box of 5–100 % of the area, aspect 3/4–4/3, scaled to the image size."""
    crop_area: tuple[float, float] = (0.05, 1.0)
    crop_antialias: bool = True
    """Whether all pixels of a crop count when it is made smaller; the paper's authors had only the
    nearest ones count."""
    mixup: float = 0.0
    """Beta(p, p) for mixing pairs of images; 0 is off. The share is max(a, 1 − a)."""
    cutmix: float = 0.0
    """Beta(p, p) for pasting a box of another image; 0 is off."""
    mix_probability: float = 1.0
    """Share of mixing groups that are mixed at all, when mixup or cutmix is on."""
    mix_group: int = 0
    """Images that share one mixing draw: 0 the whole batch, 1 each its own."""
    randaugment: float = 0.0
    """Magnitude m of RandAugment as the paper's authors ran it (data/randaugment.py), after crop,
    shift and flip; the paper uses 10, 15 and 20. 0 is off."""
    randaugment_count: int = 2
    """Operations that RandAugment makes on each image, out of sixteen."""
    erase: float = 0.0
    """Probability of filling a random box (2–33 % of the area) with noise."""

    def __post_init__(self) -> None:
        check_choices(self, "augment.")
        for name in ("mix_probability", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name} must be between 0 and 1.")
        for name in ("shift", "mixup", "cutmix", "mix_group", "randaugment", "randaugment_count"):
            if getattr(self, name) < 0:
                raise UserError(f"augment.{name} must not be negative.")
        smallest, largest = self.crop_area
        if not 0 < smallest <= largest <= 1:
            raise UserError(
                f"augment.crop_area must be two shares with 0 < smallest <= largest <= 1, found "
                f"{list(self.crop_area)}."
            )


@dataclass(frozen=True)
class Optimizer:
    """How gradients become updates. Weight decay is decoupled: p ← p·(1 − lr·weight_decay),
    on kernels (matrices) only."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    """"muon" takes the hidden matrices; AdamW with `adamw_lr` takes the rest."""
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    """Of SGD and Muon."""
    adamw_lr: float = 3e-3
    """Learning rate of everything that Muon leaves to AdamW."""
    clip: float = 0.0
    """Largest global norm of the gradient; 0 is off."""
    sam: float = 0.0
    """Sharpness-aware minimisation: how far up the slope the gradient is taken, as the norm of the
    step there; 0.05 is usual. It doubles the computation. 0 is off."""

    def __post_init__(self) -> None:
        check_choices(self, "optimizer.")
        if self.lr <= 0 or self.adamw_lr <= 0:
            raise UserError("optimizer.lr and optimizer.adamw_lr must be positive.")
        if self.weight_decay < 0 or self.clip < 0 or self.sam < 0:
            raise UserError(
                "optimizer.weight_decay, optimizer.clip and optimizer.sam must not be negative."
            )
        if not all(0 <= share < 1 for share in (*self.betas, self.momentum)):
            raise UserError(
                "optimizer.betas and optimizer.momentum must be at least 0 and below 1."
            )


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the run: linear warm-up from 0, then decay to `final` × the peak."""

    warmup: str = "10 %"
    decay: Literal["cosine", "linear", "constant"] = "linear"
    final: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "schedule.")
        parse_duration(self.warmup, share_allowed=True)
        if not 0 <= self.final <= 1:
            raise UserError(f"schedule.final must be between 0 and 1, found {self.final!r}.")


@dataclass(frozen=True)
class Loss:
    """ "sigmoid" is the authors' binary cross-entropy summed over classes."""

    kind: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs each class by the inverse of its share of the training images."""

    def __post_init__(self) -> None:
        check_choices(self, "loss.")
        if not 0 <= self.label_smoothing < 1:
            raise UserError("loss.label_smoothing must be at least 0 and below 1.")


@dataclass(frozen=True)
class Evaluate:
    """When the model is measured. `test` reads the test split once, at the end."""

    every: str = "1 epoch"
    batch_size: int = 500
    test: bool = True

    def __post_init__(self) -> None:
        parse_duration(self.every)
        if self.batch_size < 1:
            raise UserError("evaluate.batch_size must be at least 1.")


@dataclass(frozen=True)
class Save:
    """When checkpoints are written, and how many complete ones are kept: the newest, and besides
    them the one with the best held-out accuracy."""

    every: str = "1 epoch"
    keep: int = 2

    def __post_init__(self) -> None:
        parse_duration(self.every)
        if self.keep < 2:
            raise UserError(f"save.keep must be at least 2, found {self.keep}.")


@dataclass(frozen=True)
class NotFinite:
    """What a NaN or infinite loss or gradient does. The update is never made; "stop" ends the run,
    "skip" leaves the batch out and goes on, "roll back" goes on from the newest checkpoint and
    leaves the batch out when it comes again. Where the next batch fails too, with the same
    weights, those are at fault: "roll back" then leaves out batches before it as well, 3, 7, 15 …
    in all, and goes on from the newest checkpoint that has seen none of them; later ones are taken
    away. So it does where outputs or weights are not finite, which "skip" cannot help. More than
    `limit` batches that are left out end the run."""

    policy: Literal["stop", "skip", "roll back"] = "stop"
    limit: int = 15

    def __post_init__(self) -> None:
        check_choices(self, "not_finite.")
        if self.limit < 1:
            raise UserError(f"not_finite.limit must be at least 1, found {self.limit}.")


@dataclass(frozen=True)
class Recipe:
    """One training run. Everything here is written to the run folder's `recipe.yaml`."""

    name: str = "custom"
    model: MixerConfig = field(default_factory=MixerConfig)
    init: Init = field(default_factory=Init)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    loss: Loss = field(default_factory=Loss)
    evaluate: Evaluate = field(default_factory=Evaluate)
    save: Save = field(default_factory=Save)
    not_finite: NotFinite = field(default_factory=NotFinite)
    duration: str = "10 epochs"
    batch_size: int = 128
    """Images per optimiser step, over all processes and accumulated micro-batches."""
    accumulation: int = 1
    """Micro-batches into which a batch is cut."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights; 0 is off."""
    precision: Precision = "float32"
    """"bfloat16" computes in it and keeps weights in float32; "float64" is for comparing two ways
    of computing the same."""
    compile: Literal["auto", "on", "off"] = "auto"
    """"auto" measures whether torch.compile repays its start within this run; the choice is
    stored with the run."""
    activation_checkpointing: bool = False
    """Whether to compute every block again in the backward pass rather than keep its inside."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes (torchrun) share the work. "ddp": each has the whole model and its part
    of the batch. "fsdp": parameters, gradients and optimiser state are divided among them too."""
    threads: int = 0
    """Processor threads; 0 takes PyTorch's choice. The number used is stored with the run."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        parse_duration(self.duration)
        if self.batch_size < 1 or self.accumulation < 1:
            raise UserError("batch_size and accumulation must be at least 1.")
        if self.batch_size % self.accumulation:
            raise UserError(
                f"batch_size {self.batch_size} must be a multiple of accumulation "
                f"{self.accumulation}."
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"ema must be at least 0 and below 1, found {self.ema!r}.")
        if not 0 <= self.threads <= MOST_THREADS:
            raise UserError(f"threads must be from 0 to {MOST_THREADS}, found {self.threads}.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be from 0 to 4294967295, found {self.seed}.")
