"""`mixer bench surgery`: a Fashion-MNIST model moved to other image and patch sizes.

For every way of changing the token mixing: accuracy with no further step, and after fine-tuning
as long as a fresh model of that size is trained. Accuracy is measured on held-out training
images; the test set is not read.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.load import load, save_model
from mixerkit.evaluation.accuracy import measure, probabilities
from mixerkit.insight.canvas import can_draw, new_figure, png_bytes, style
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import METHODS
from mixerkit.results import write_results
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Evaluate, Recipe
from mixerkit.spec.recipes import recipe
from mixerkit.training.loop import train
from mixerkit.training.setup import evaluation_loader, open_data, preprocess_of

Say = Callable[[str], None]

NATIVE = dict(patch_size=4, width=48, depth=3, token_width=32, channel_width=128)
NATIVE_EPOCHS = 8
HOLDOUT = 5000
EPOCHS = (1, 3)
FINE_TUNING_RATE = 0.3
"""Of the rates that a fresh model is trained with."""
FRESH = "from scratch"


@dataclass(frozen=True)
class Case:
    """A size to move to; `whole` when it is a whole multiple of the native one."""

    name: str
    changes: dict[str, Any]
    whole: bool = False


CASES = (
    Case("56 px", {"image_size": 56}, whole=True),
    Case("44 px", {"image_size": 44}),
    Case("20 × 36 px", {"image_size": (20, 36)}),
    Case("patch 2", {"patch_size": 2}),
    Case("patch 7", {"patch_size": 7}),
)


def base_recipe(epochs: int) -> Recipe:
    """The demo's recipe with the native model; images are squashed to any size."""
    base = recipe("fashion-demo")
    return replace(
        base,
        model=variant("N/4", in_channels=1, num_classes=10, **NATIVE),
        data=replace(base.data, holdout=HOLDOUT, resize="squash"),
        evaluate=Evaluate(every=f"{epochs} epochs", test=False),
        duration=f"{epochs} epochs",
    )


def ways(case: Case) -> dict[str, dict[str, Any]]:
    """Name → arguments of `load`."""
    whole = {"shared": {"enlargement": "shared"}, "dense": {"enlargement": "dense"}}
    resampled = {name: {"enlargement": "resample", "method": name} for name in METHODS}
    return (whole if case.whole else {}) | resampled


def for_model(base: Recipe, model: MlpMixer, epochs: int, rate: float) -> Recipe:
    """The recipe that trains `model`, at `rate` times the base's learning rates."""
    optimizer = replace(
        base.optimizer, lr=base.optimizer.lr * rate, adamw_lr=base.optimizer.adamw_lr * rate
    )
    return replace(
        base,
        model=model.config,
        optimizer=optimizer,
        duration=f"{epochs} epochs",
        evaluate=Evaluate(every=f"{epochs} epochs", test=False),
    )


def held_out_accuracy(model: MlpMixer, settings: Recipe) -> float:
    """Top-1 on the images that no model here learns from."""
    settings, splits = open_data(settings)
    assert splits.validation is not None
    loader = evaluation_loader(settings, splits, splits.validation)
    found, labels = probabilities(model.eval(), loader)
    return measure(found, labels, splits.train.class_names).top1


def trained(model: MlpMixer, settings: Recipe, folder: Path) -> tuple[float, int]:
    """(held-out accuracy, steps taken) after training `model` by `settings`."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        done = train(settings, Path(run) / "run", model=model)
    assert done.validation is not None
    return done.validation.top1, done.steps


def native(folder: Path, epochs: int, say: Say) -> tuple[Path, Recipe, float, int]:
    """The model that all others start from: its folder, recipe, accuracy and steps."""
    base = base_recipe(epochs)
    model = MlpMixer(base.model)
    accuracy, steps = trained(model, base, folder)
    say(f"native, {epochs} epochs: {accuracy:.4f} after {steps} steps")
    settings, splits = open_data(base)
    save_model(folder / "native", model, preprocess_of(settings, splits), {})
    return folder / "native", base, accuracy, steps


def rows_of(case: Case, source: Path, base: Recipe, folder: Path, epochs: tuple[int, ...],
            say: Say) -> list[dict[str, Any]]:  # fmt: skip
    """Every way, then a fresh model of the same size, after 0 and each of `epochs` epochs."""
    rows = []
    for way, arguments in ways(case).items():
        for count in (0, *epochs):
            model = load(source, **case.changes, **arguments)
            settings = for_model(base, model, count or 1, FINE_TUNING_RATE)
            accuracy, steps = (
                trained(model, settings, folder)
                if count
                else (held_out_accuracy(model, settings), 0)
            )
            rows.append(row(case, way, count, accuracy, steps, model))
            say(sentence(rows[-1]))
    for count in epochs:
        config = load(source, **case.changes, enlargement="resample").config
        model = MlpMixer(config)
        accuracy, steps = trained(model, for_model(base, model, count, 1.0), folder)
        rows.append(row(case, FRESH, count, accuracy, steps, model))
        say(sentence(rows[-1]))
    return rows


def row(
    case: Case, way: str, epochs: int, accuracy: float, steps: int, model: MlpMixer
) -> dict[str, Any]:
    """One row of the results."""
    priced = cost(model.config)
    return {
        "case": case.name,
        "way": way,
        "epochs": epochs,
        "held_out_accuracy": round(accuracy, 4),
        "steps": steps,
        "tokens": model.config.num_patches,
        "parameters": priced.parameters,
        "million_macs": round(priced.macs / 1e6, 3),
    }


def sentence(found: dict[str, Any]) -> str:
    """A row for a person."""
    return (
        f"{found['case']}, {found['way']}, {found['epochs']} epochs: "
        f"{found['held_out_accuracy']:.4f} ({found['steps']} steps)"
    )


COLOURS = {
    "shared": "#2563c9",
    "dense": "#1b9e77",
    "bilinear": "#d95f02",
    "bicubic": "#7570b3",
    "area": "#e7298a",
    "pinv": "#66a61e",
    FRESH: "#1f2328",
}


def figure(rows: list[dict[str, Any]]) -> bytes:
    """A column for each size: above, the accuracy of every way without a further step; below,
    after fine-tuning, beside a fresh model of that size (dashed)."""
    cases = list(dict.fromkeys(row["case"] for row in rows if row["way"] != "native"))
    with style():
        canvas = new_figure(2.2 * len(cases) + 0.9, 4.6)
        panels = canvas.subplots(2, len(cases), squeeze=False, sharex="row", sharey="row")
        for case, at_once, later in zip(cases, *panels, strict=True):
            at_once.set_title(case)
            _draw_at_once(at_once, [r for r in rows if r["case"] == case and not r["epochs"]])
            _draw_later(later, [r for r in rows if r["case"] == case and r["epochs"]])
        panels[0][0].set_xlabel("held-out accuracy at once, %")
        panels[1][0].set_ylabel("held-out accuracy, %")
        return png_bytes(canvas)


def _draw_at_once(ax: Any, rows: list[dict[str, Any]]) -> None:
    ways = [way for way in COLOURS if way != FRESH]
    for row in rows:
        accuracy, place = 100 * row["held_out_accuracy"], -ways.index(row["way"])
        ax.barh(place, accuracy, color=COLOURS[row["way"]], height=0.7)
        ax.text(accuracy + 2, place, f"{accuracy:.1f}", va="center", fontsize=7)
    ax.set_yticks([-i for i in range(len(ways))], ways)
    ax.set_xlim(0, 112)
    ax.grid(False)


def _draw_later(ax: Any, rows: list[dict[str, Any]]) -> None:
    for way, colour in COLOURS.items():
        line = [row for row in rows if row["way"] == way]
        ax.plot(
            [row["epochs"] for row in line],
            [100 * row["held_out_accuracy"] for row in line],
            color=colour,
            linestyle="--" if way == FRESH else "-",
            marker="o",
            markersize=3,
        )
    ax.set_xticks(EPOCHS)
    ax.set_xlabel("epochs of fine-tuning")


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """The whole table, written to `out` after each case, and a figure beside it; `quick` is one
    case with no fine-tuning."""
    cases, epochs = (CASES[2:3], ()) if quick else (CASES, EPOCHS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source, base, accuracy, steps = native(folder, 1 if quick else NATIVE_EPOCHS, say)
        trained_for = int(base.duration.split()[0])
        rows = [row(Case("28 px", {}), "native", trained_for, accuracy, steps, load(source))]
        for case in cases:
            rows += rows_of(case, source, base, folder, epochs, say)
            keep(out, rows, base, quick)
    return rows


def keep(out: Path, rows: list[dict[str, Any]], base: Recipe, quick: bool) -> None:
    """Write what is known so far: a long study that is stopped leaves its finished cases."""
    write_results(
        out,
        name="surgery",
        command="mixer bench surgery" + (" --quick" if quick else ""),
        settings={
            "recipe": base.name,
            "model": NATIVE,
            "held_out_images": HOLDOUT,
            "native_epochs": base.duration,
            "fine_tuning_rate": FINE_TUNING_RATE,
            "seed": base.seed,
        },
        rows=rows,
    )
    if can_draw():
        out.with_suffix(".png").write_bytes(figure(rows))
