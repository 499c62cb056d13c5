"""`mixer bench throughput`: images per second of Mixers beside ViT, ResNet and their kin, and what
a Mixer costs by the number of patches.

Models are timed in groups that fit into memory, each with Mixer-B/16 among them: a ratio to it, or
between two models of a group, is the median of the ratios within each round.
"""

import gc
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixerkit.benchmark import patches
from mixerkit.benchmark.architectures import (
    Architecture,
    built,
    forward,
    priced,
    published_rate,
)
from mixerkit.benchmark.workload import Say
from mixerkit.checkpoint.files import write_atomic
from mixerkit.insight.canvas import can_draw
from mixerkit.results import write_results
from mixerkit.spec.paper import CLAIMS
from mixerkit.study.throughput_figure import figure
from mixerkit.timer import Comparison, compare, interleave


@dataclass(frozen=True)
class Pair:
    """Two models of a group, the first of which is said to be faster; `claim` names the paper's
    sentence about them in `spec/paper.py`."""

    faster: Architecture
    than: Architecture
    claim: str = ""


@dataclass(frozen=True)
class Group:
    """Models that are timed in turns, `ANCHOR` before them, in batches of one size."""

    name: str
    batch: int
    rounds: int
    others: tuple[Architecture, ...]
    pairs: tuple[Pair, ...]

    @property
    def everyone(self) -> tuple[Architecture, ...]:
        """All models of the group."""
        return (ANCHOR, *self.others)


ANCHOR = Architecture("Mixer-B/16")

VIT_B = Architecture("ViT-B/16", 224, "vit_base_patch16_224")
BOTNET = "BotNet (84.7 %); its published T7 is not in timm"
SMALL = Group(
    "small models at 224 px",
    batch=8,
    rounds=15,
    others=(
        Architecture("Mixer-S/32"),
        Architecture("Mixer-B/32"),
        Architecture("Mixer-S/16"),
        VIT_B,
        Architecture("ResNet-50", 224, "resnet50"),
        Architecture("BiT-R50x1", 224, "resnetv2_50x1_bit"),
        Architecture("BotNet-26T", 256, "botnet26t_256", stand_in=BOTNET),
        Architecture("BotNet-50TS", 256, "botnet50ts_256", stand_in=BOTNET),
        Architecture(
            "HaloNet-50TS", 256, "halonet50ts", stand_in="HaloNet; table 2's is not there"
        ),
    ),
    pairs=(Pair(ANCHOR, VIT_B, "speed-b16"),),
)

MIXER_L, VIT_L = Architecture("Mixer-L/16"), Architecture("ViT-L/16", 224, "vit_large_patch16_224")
LARGE = Group(
    "Large models at 224 px",
    batch=2,
    rounds=9,
    others=(
        Architecture("Mixer-L/32"),
        MIXER_L,
        VIT_L,
        Architecture("BiT-R152x2", 224, "resnetv2_152x2_bit"),
    ),
    pairs=(Pair(MIXER_L, VIT_L, "speed-l16"),),
)

MIXER_H, VIT_H = Architecture("Mixer-H/14"), Architecture("ViT-H/14", 224, "vit_huge_patch14_224")
HUGE = Group(
    "Huge models at 224 px", batch=1, rounds=9, others=(MIXER_H, VIT_H),
    pairs=(Pair(MIXER_H, VIT_H),),
)  # fmt: skip

L_DENSE = Architecture("Mixer-L/16", 448, form="dense")
L_TILES = Architecture("Mixer-L/16", 448, form="shared")
VIT_L_512 = Architecture("ViT-L/16", 512, "vit_large_patch16_224")
LARGE_AT_BEST = Group(
    "Large models and NFNets at their best sizes",
    batch=1,
    rounds=5,
    others=(
        L_DENSE,
        L_TILES,
        VIT_L_512,
        Architecture("NFNet-F4", 512, "dm_nfnet_f4", stand_in="NFNet-F4+, which timm lacks"),
        Architecture("NFNet-F6", 576, "dm_nfnet_f6"),
    ),
    pairs=(Pair(L_DENSE, VIT_L_512), Pair(L_TILES, VIT_L_512)),
)

H_DENSE = Architecture("Mixer-H/14", 448, form="dense")
H_TILES = Architecture("Mixer-H/14", 448, form="shared")
VIT_H_518 = Architecture("ViT-H/14", 518, "vit_huge_patch14_224")
BIT_480 = Architecture("BiT-R152x4", 480, "resnetv2_152x4_bit")
HUGE_AT_BEST = Group(
    "Huge models at their best sizes",
    batch=1,
    rounds=5,
    others=(H_DENSE, H_TILES, VIT_H_518, BIT_480),
    pairs=(
        Pair(H_DENSE, VIT_H_518, "speed-vit"),
        Pair(H_TILES, VIT_H_518, "speed-vit"),
        Pair(H_DENSE, BIT_480, "speed-bit"),
        Pair(H_TILES, BIT_480, "speed-bit"),
    ),
)

GROUPS = (SMALL, LARGE, HUGE, LARGE_AT_BEST, HUGE_AT_BEST)
QUICK_GROUPS = (
    Group(
        "a few models",
        batch=1,
        rounds=2,
        others=(VIT_B, Architecture("Mixer-S/32"), Architecture("Mixer-S/32", 448, form="shared")),
        pairs=SMALL.pairs,
    ),
)


def measure(group: Group) -> list[dict[str, Any]]:
    """A row for each model of the group, then one for each pair."""
    models = built(group.everyone)
    calls = {
        one.title: forward(models[one.title], one.image_size, group.batch) for one in group.everyone
    }
    seconds = interleave(calls, rounds=group.rounds, warmup=1)
    costs = {one.title: (parameters(models[one.title]), priced(one)[1]) for one in group.everyone}
    beside_anchor = compare(seconds, ANCHOR.title)
    rows = [
        model_row(group, one, costs[one.title], beside_anchor[one.title]) for one in group.everyone
    ]
    for pair in group.pairs:
        found = compare(seconds, pair.than.title)[pair.faster.title]
        macs = costs[pair.than.title][1] / costs[pair.faster.title][1]
        rows.append(ratio_row(group, pair, found, macs))
    return rows


def parameters(model: nn.Module) -> int:
    """Trainable numbers of the model that is timed."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_row(
    group: Group, one: Architecture, price: tuple[int, int], found: Comparison
) -> dict[str, Any]:
    """A row of the part "models"."""
    anchor = ANCHOR.published_rate
    assert anchor is not None
    count, macs = price
    return {
        "part": "models",
        "group": group.name,
        "title": one.title,
        "name": one.name,
        "family": one.family,
        "timm_name": one.timm_name or None,
        "form": one.form,
        "image_size": one.image_size,
        "parameters": count,
        "gmacs": macs / 1e9,
        "batch": group.batch,
        "rounds": group.rounds,
        "images_per_second": group.batch / found.seconds,
        "ratio": found.speedup,
        "ratio_quartiles": [found.low, found.high],
        "published_images_per_second": one.published_rate,
        "published_ratio": one.published_rate and one.published_rate / anchor,
        "stand_in": one.stand_in or None,
    }


def ratio_row(group: Group, pair: Pair, found: Comparison, macs: float) -> dict[str, Any]:
    """A row of the part "ratios"; `macs` of the slower model over those of the faster."""
    rates = [published_rate(one.name, one.image_size) for one in (pair.faster, pair.than)]
    ours, theirs = rates
    assert ours is not None and theirs is not None
    said = {claim.name: claim.value for claim in CLAIMS if claim.in_tables is not None}
    return {
        "part": "ratios",
        "claim": pair.claim or None,
        "faster": pair.faster.title,
        "than": pair.than.title,
        "form": pair.faster.form,
        "batch": group.batch,
        "rounds": group.rounds,
        "ratio": found.speedup,
        "ratio_quartiles": [found.low, found.high],
        "mac_ratio": macs,
        "published_in_words": said.get(pair.claim),
        "published_in_tables": ours / theirs,
    }


def sentence(row: dict[str, Any]) -> str:
    """A row of "models" or "ratios" for a person."""
    low, high = row["ratio_quartiles"]
    spread = f"{row['ratio']:.3g}× ({low:.3g} to {high:.3g})"
    if row["part"] == "ratios":
        words = row["published_in_words"]
        published = f"{words or row['published_in_tables']:.3g}×"
        if words:
            published += f" in words, {row['published_in_tables']:.3g}× by its tables"
        return f"{row['faster']} is {spread} as fast as {row['than']}; in the paper {published}"
    return (
        f"{row['title']}: {row['images_per_second']:.3g} images/s in batches of {row['batch']}, "
        f"{row['gmacs']:.1f} GMACs, {spread} as fast as {ANCHOR.name}"
    )


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Both parts, written to `out` and drawn beside it in the end; until then what is known is in
    a file of its own, OUT.part.json."""
    part = out.with_suffix(".part.json")
    groups = QUICK_GROUPS if quick else GROUPS
    sizes = patches.QUICK_SIZES if quick else patches.SIZES
    models = sum(len(group.everyone) for group in groups)
    tell = numbered(say, models + len(sizes) * len(patches.contenders(*sizes[0])))
    rows: list[dict[str, Any]] = []
    for group in groups:
        say(f"{group.name}: {len(group.everyone)} models, {group.rounds} rounds")
        found = measure(group)
        for row in found:
            (tell if row["part"] == "models" else say)(sentence(row))
        rows += found
        keep(part, rows, quick)
        gc.collect()  # the next group needs the memory
    say("B/16 by the number of patches")
    by_patches = patches.measure_sizes(sizes, tell)
    rows += [*by_patches, *patches.exponents(by_patches)]
    if can_draw():
        write_atomic(out.with_suffix(".png"), figure(rows))
    keep(out, rows, quick)
    part.unlink()
    return rows


def numbered(say: Say, total: int) -> Say:
    """`say` with how many of all lines have been said."""
    count = itertools.count(1)
    return lambda line: say(f"{next(count)}/{total} {line}")


def keep(out: Path, rows: Sequence[dict[str, Any]], quick: bool) -> None:
    """Write what is known so far."""
    write_results(
        out,
        name="throughput",
        command="mixer bench throughput" + (" --quick" if quick else ""),
        settings={
            "threads": torch.get_num_threads(),
            "precision": "float32",
            "compiled": False,
            "gelu": "erf in Mixers, as in timm's ViT",
            "weights": "random; those of BiT and NFNet standardised once, not in every pass",
            "ratio": "the other model's seconds over this one's, median over the rounds; in "
            "models, the other is Mixer-B/16 at 224 px in the same batches",
            "form": "of an enlarged Mixer: dense (the paper's) or shared (tiles, ours)",
            "mac_ratio": "multiply-adds of the slower model over those of the faster",
            "published": "images per second and TPUv3 core; in words: 2.5, and almost 2",
            "exponents": "slope of the logarithm over that of the number of patches",
        },
        rows=list(rows),
    )
