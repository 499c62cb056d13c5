"""`mixer bench regularisation`: does a Mixer overfit without the paper's regularisation?

The demo's model on a share of Fashion-MNIST's training images, for equally many steps: plain; with
the paper's weight decay, mixup and stochastic depth; and with its RandAugment too. Measured on
training images that were held out, and on training images as they are; the test set is not read.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import Accuracy, evaluate
from mixerkit.insight.canvas import can_draw, new_figure, png_bytes, style
from mixerkit.results import read_results, write_results
from mixerkit.spec.recipe import Augment, Evaluate, Optimizer, Recipe, Save
from mixerkit.spec.recipes import recipe
from mixerkit.training.loop import train
from mixerkit.training.setup import evaluation_loader, open_data

Say = Callable[[str], None]

SHARES, QUICK_SHARES = (0.03, 0.1, 0.3, 1.0), (0.03,)
STEPS, CURVE_POINTS, SEEDS = 4000, 20, (0,)
HOLDOUT, MEASURED = 5000, 5000
PLAIN, PAPER, ALL = "none", "decay, mixup, depth", "and RandAugment"
ARMS = (PLAIN, PAPER, ALL)
RATE = 3e-3
"""AdamW's, for the demo's small model."""


def settings_of(arm: str, share: float, seed: int, steps: int) -> Recipe:
    """The demo's model, mirrored and moved by one pixel in every arm. The paper's values are those
    of Mixer-B/16 on ImageNet-1k."""
    base = recipe("fashion-demo")
    paper = arm != PLAIN
    return replace(
        base,
        name="regularisation",
        model=replace(base.model, drop_path=0.1 if paper else 0.0),
        data=replace(base.data, holdout=HOLDOUT, share=share),
        augment=Augment(
            flip=False,
            shift=1,
            mixup=0.5 if paper else 0.0,
            randaugment=15.0 if arm == ALL else 0.0,
        ),
        optimizer=Optimizer(name="adamw", lr=RATE, weight_decay=0.1 if paper else 0.0),
        evaluate=Evaluate(every=f"{max(1, steps // CURVE_POINTS)} steps", test=False),
        save=Save(every=f"{steps} steps"),
        duration=f"{steps} steps",
        seed=seed,
    )


def one_run(arm: str, share: float, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """One row: the end of a run, and its course."""
    settings = settings_of(arm, share, seed, steps)
    path = folder / f"{ARMS.index(arm)}-{share}-{seed}"
    result = train(settings, path)
    assert result.validation is not None
    with RunFolder.open(path) as run:
        course = [row for row in run.metrics() if row["split"] == "validation"]
    known = on_training_images(settings, path)
    return {
        "regularisation": arm,
        "share": share,
        "images": len(open_data(settings)[1].train),
        "seed": seed,
        "training_accuracy": known.top1,
        "training_nll": known.nll,
        "held_out_accuracy": result.validation.top1,
        "held_out_nll": result.validation.nll,
        "best_held_out_accuracy": max(row["top1"] for row in course),
        "course": [[row["step"], row["top1"], row["nll"]] for row in course],
    }


def on_training_images(settings: Recipe, run: Path) -> Accuracy:
    """How well the model knows the images that it was trained on, or some thousands of them."""
    settings, splits = open_data(settings)
    some = splits.train.subset(range(min(MEASURED, len(splits.train))))
    return evaluate(load(run), evaluation_loader(settings, splits, some), splits.train.class_names)


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Every arm and share, written to `out` after each run, and a figure beside it. Rows that are
    in `out` already, of the same settings, are kept: it goes on where it was stopped."""
    shares, seeds, steps = (QUICK_SHARES, (0,), 40) if quick else (SHARES, SEEDS, STEPS)
    rows = known_rows(out, steps)
    done = {(row["share"], row["regularisation"], row["seed"]) for row in rows}
    say(f"{len(done)} of {len(shares) * len(ARMS) * len(seeds)} runs are done")
    with tempfile.TemporaryDirectory() as temporary:
        for seed, share, arm in product(seeds, shares, ARMS):  # the first seed is complete first
            if (share, arm, seed) in done:
                continue
            row = one_run(arm, share, seed, steps, Path(temporary))
            rows = sorted([*rows, row], key=place)
            say(sentence(row))
            keep(out, rows, steps, quick)
    return rows


def place(row: dict[str, Any]) -> tuple[float, int, int]:
    """Where a row belongs among others."""
    return row["share"], ARMS.index(row["regularisation"]), row["seed"]


def known_rows(out: Path, steps: int) -> list[dict[str, Any]]:
    """The rows of an earlier part of the study."""
    if not out.exists():
        return []
    before = read_results(out)
    if before["settings"] != described(steps):
        raise UserError(f"{out} was measured with other settings: give another --out.")
    rows: list[dict[str, Any]] = before["rows"]
    return rows


def described(steps: int) -> dict[str, Any]:
    """What all runs have in common."""
    return {
        "model": "N/7",
        "steps": steps,
        "batch_size": recipe("fashion-demo").batch_size,
        "optimizer": "adamw",
        "learning_rate": RATE,
        "held_out_images": HOLDOUT,
    }


def sentence(row: dict[str, Any]) -> str:
    """A row for a person."""
    return (
        f"{row['images']:6,} images, {row['regularisation']:20} seed {row['seed']}: knows "
        f"{row['training_accuracy']:.1%} of them, recognises {row['held_out_accuracy']:.1%} of "
        f"others (nll {row['held_out_nll']:.3f})"
    )


def keep(out: Path, rows: list[dict[str, Any]], steps: int, quick: bool) -> None:
    """Write what is known so far."""
    write_results(
        out,
        name="regularisation",
        command="mixer bench regularisation" + (" --quick" if quick else ""),
        settings=described(steps),
        rows=rows,
    )
    if can_draw():
        out.with_suffix(".png").write_bytes(figure(rows))


COLOURS = {PLAIN: "#d95f02", PAPER: "#2563c9", ALL: "#1b9e77"}


def figure(rows: list[dict[str, Any]]) -> bytes:
    """A column for each share: the held-out loss over the run. Last: what is known of the training
    images (dashed) and of others, by share."""
    shares = sorted({row["share"] for row in rows})
    with style():
        canvas = new_figure(2.3 * (len(shares) + 1) + 0.6, 2.9)
        panels = canvas.subplots(1, len(shares) + 1, squeeze=False)[0]
        for panel, share in zip(panels, shares, strict=False):
            some = [row for row in rows if row["share"] == share]
            panel.set_title(f"{some[0]['images']:,} images")
            for row in some:
                steps, _, nll = zip(*row["course"], strict=True)
                panel.plot(steps, nll, color=COLOURS[row["regularisation"]], linewidth=1)
            panel.set_xlabel("step")
            panel.set_ylim(0.2, 1.2)
        panels[0].set_ylabel("held-out loss, nats")
        _draw_ends(panels[-1], rows, shares)
        panels[0].legend(*panels[-1].get_legend_handles_labels(), fontsize=7)
        return png_bytes(canvas)


def _draw_ends(panel: Any, rows: list[dict[str, Any]], shares: list[float]) -> None:
    for arm, colour in COLOURS.items():
        for key, line in (("held_out_accuracy", "-"), ("training_accuracy", "--")):
            known = [
                [row[key] for row in rows if (row["regularisation"], row["share"]) == (arm, share)]
                for share in shares
            ]
            points = [(s, 100 * mean(some)) for s, some in zip(shares, known, strict=True) if some]
            label = arm if key == "held_out_accuracy" else None
            panel.plot(*zip(*points, strict=True), line, color=colour, label=label, marker="o",
                       markersize=3)  # fmt: skip
    panel.set_xscale("log")
    panel.set_xticks(shares, [f"{100 * share:g}" for share in shares])
    panel.set_xlabel("% of the training images")
    panel.set_title("accuracy at the end, %")
