"""What a run's report says, section by section, from facts and figures to HTML."""

import base64
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from mixerkit.insight import page
from mixerkit.insight.canvas import percent
from mixerkit.insight.figures import PNG_URI
from mixerkit.insight.page import Tile
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant_of
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.strict import write_yaml

LONG_TABLE = 20
"""Classes above which the table is folded away."""

STATES = {
    "finished": "Finished.",
    "running": "Still running.",
    "stopped": "Stopped before its end.",
}


@dataclass(frozen=True)
class RunFacts:
    """Everything that the report says; `evaluation` and `model` are None before a run's end.
    `about` is the machine and the versions that the run began with."""

    name: str
    state: str
    recipe: Recipe
    about: Mapping[str, Any]
    choices: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    timings: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None
    model: MlpMixer | None


def tell(facts: RunFacts, pngs: Mapping[str, bytes]) -> str:
    """The whole page; sections whose figures are missing are left out."""
    model, data = variant_of(facts.recipe.model), PurePath(facts.recipe.data.source).name
    lead = f"Mixer {model} on {data}, trained by the recipe {facts.recipe.name}."
    sections = [
        page.heading(facts.name, f"{lead} {STATES.get(facts.state, facts.state)}"),
        _missing(facts),
        page.tiles(_headline(facts)),
        _again(facts),
        _learning(pngs),
        _classes(facts, pngs),
        _mistakes(facts),
        _filters(facts, pngs),
        _token_units(facts, pngs),
        _details(facts),
        page.footer("Written by mixerkit: one file, no scripts, nothing loaded from elsewhere."),
    ]
    return page.page(f"{facts.name} · mixerkit", *(part for part in sections if part))


def _missing(facts: RunFacts) -> str:
    if facts.evaluation is not None:
        return ""
    done = f"{facts.metrics[-1]['step']:,} steps logged" if facts.metrics else "nothing logged yet"
    return page.notice(
        f"This run has no evaluation yet ({done}, planned: {facts.recipe.duration}). Classes, "
        f"mistakes and weights appear here when it has finished."
    )


def _headline(facts: RunFacts) -> list[Tile]:
    return [*_accuracy_tiles(facts), *_cost_tiles(facts), *_time_tiles(facts)]


def _accuracy_tiles(facts: RunFacts) -> list[Tile]:
    """The final figures, or those of the latest validation."""
    classes = facts.recipe.model.num_classes
    if facts.evaluation is not None:
        found, split = facts.evaluation["figures"], str(facts.evaluation["split"])
        samples = int(found["samples"])
        share = f"{round(found['top1'] * samples):,} of {samples:,} images"
    else:
        validated = [row for row in facts.metrics if row["split"] == "validation"]
        if not validated:
            return []
        found, split, share = validated[-1], "validation", f"at step {validated[-1]['step']:,}"
    tiles = [Tile(f"{split.capitalize()} accuracy", percent(found["top1"]), share)]
    if classes > 5:
        tiles.append(Tile("Top-5 accuracy", percent(found["top5"]), "true class among the first 5"))
    return [
        *tiles,
        Tile("NLL", f"{found['nll']:.3f}", f"nats per image; {math.log(classes):.3f} by guessing"),
        Tile("Calibration error", percent(found["ece"]), "mean gap: confidence to accuracy"),
    ]


def _cost_tiles(facts: RunFacts) -> list[Tile]:
    model, price = facts.recipe.model, cost(facts.recipe.model)
    height, width = model.image_hw
    shape = f"{model.depth} blocks, width {model.width}"
    return [
        Tile("Parameters", f"{price.parameters:,}", shape),
        Tile("MACs", in_thousands(price.macs), f"per image of {height} × {width} px"),
    ]


def _time_tiles(facts: RunFacts) -> list[Tile]:
    timed = [row for row in facts.timings if "images_per_second" in row]
    if not timed:
        return []
    last = timed[-1]
    speed = statistics.median(row["images_per_second"] for row in timed)
    return [
        Tile("Training time", in_minutes(last["seconds"]), f"{last['step']:,} steps"),
        Tile("Images/s", f"{speed:,.0f}", f"{percent(last['waiting'])} of the time awaiting data"),
    ]


def in_thousands(count: float) -> str:
    """12602000000 → "12.6 G"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}\N{NO-BREAK SPACE}{letter}"
    return f"{count:g}"


def in_minutes(seconds: float) -> str:
    """161.4 → "2 min 41 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}\N{NO-BREAK SPACE}h {minutes}\N{NO-BREAK SPACE}min"
    if minutes:
        return f"{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s"
    return f"{seconds:.3g}\N{NO-BREAK SPACE}s"


def _again(facts: RunFacts) -> str:
    again = shlex.quote(f"../{facts.name}-again")
    words = "In this run's folder, the same recipe trains a second model:"
    return page.section(
        "Do it again", words, page.command(f"mixer train recipe.yaml --out {again}")
    )


def _learning(pngs: Mapping[str, bytes]) -> str:
    alts = {
        "loss": "Training loss and validation NLL over epochs",
        "accuracy": "Top-1 accuracy over epochs",
        "learning-rate": "Learning rate over epochs",
    }
    curves = [page.picture(pngs[name], alt) for name, alt in alts.items() if name in pngs]
    if not curves:
        return ""
    words = (
        "Training images are augmented and their labels may be smoothed, so the training loss can "
        "lie above the validation NLL. A validation NLL that turns upwards while the training "
        "loss goes on falling is overfitting."
    )
    return page.section("Learning", words, page.side_by_side(*curves))


def _classes(facts: RunFacts, pngs: Mapping[str, bytes]) -> str:
    if facts.evaluation is None:
        return ""
    header = ("Class", "Images", "Recall", "Precision")
    rows = [
        (str(row["name"]), f"{row['samples']:,}", _share(row["recall"]), _share(row["precision"]))
        for row in facts.evaluation["per_class"]
    ]
    table = page.table(header, rows)
    pictures = [
        page.picture(pngs["confusion"], "Confusion matrix", large=True),
        page.picture(pngs["recall"], "Recall of each class"),
    ]
    if len(rows) > LONG_TABLE:
        table = page.details(f"All {len(rows)} classes", table)
    else:
        pictures = [page.side_by_side(*pictures)]
    return page.section(
        "Classes",
        "Recall is the share of a class's images that are found; precision the share of its "
        "predictions that are right. A row of the confusion matrix shows where the images of one "
        "class went; its colours grow as the square root, so that rare mistakes can be seen.",
        *pictures,
        table,
    )


def _share(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _mistakes(facts: RunFacts) -> str:
    mistakes = facts.evaluation["mistakes"] if facts.evaluation else []
    if not mistakes:
        return ""
    items = [
        (
            base64.b64decode(str(mistake["image"]).removeprefix(PNG_URI)),
            str(mistake["true"]),
            f"→ {mistake['predicted']}",
            percent(mistake["probability"]),
        )
        for mistake in mistakes
    ]
    words = (
        "Wrong, and most sure of it: the true class, what the model said, and the probability it "
        "gave. Some of these are hard for people too, and some labels are wrong: look here first "
        "when the accuracy stops rising."
    )
    return page.section("Most confident mistakes", words, page.gallery(items))


def _filters(facts: RunFacts, pngs: Mapping[str, bytes]) -> str:
    if "filters" not in pngs:
        return ""
    model = facts.recipe.model
    height, width = model.patch_hw
    words = (
        f"Each square is one of the {model.width} filters that see a patch of {height} × {width} "
        f"pixels first: a patch that resembles it gives a large value in that channel. Smooth ones "
        f"measure brightness, half-and-half ones find edges, striped ones fine texture; a short "
        f"training leaves many irregular."
    )
    sheet = page.picture(pngs["filters"], "Patch-embedding filters", large=True)
    return page.section("What the patch embedding looks for", words, sheet)


def _token_units(facts: RunFacts, pngs: Mapping[str, bytes]) -> str:
    names = sorted(name for name in pngs if name.startswith("token-units-"))
    if not names:
        return ""
    down, across = facts.recipe.model.grid
    linear = facts.recipe.model.token_mixer == "linear"
    sheets = [
        page.picture(pngs[name], f"Token-mixing weights, block {name[-1]}", large=True)
        for name in names
    ]
    each = "Each square belongs to one patch of the output" if linear else "Each square is one unit"
    order = (
        "The squares lie as the patches do in the image."
        if linear
        else "Low frequencies come first, and each unit is followed by the one most opposite to "
        "it. In the paper's large models the first blocks hold wide, smooth regions and many such "
        "pairs, deeper blocks no clear structure: compare."
    )
    words = (
        f"Token mixing is how patches exchange information. {each}, drawn on the {down} × {across} "
        f"grid of patches: red where a patch raises it, blue where a patch lowers it. {order}"
    )
    return page.section("Which patches are combined", words, *sheets)


def _details(facts: RunFacts) -> str:
    recipe = page.details("Recipe (recipe.yaml)", page.command(write_yaml(facts.recipe)))
    return page.section(
        "Details", "", recipe, page.details("Machine and versions", _machine(facts))
    )


def _machine(facts: RunFacts) -> str:
    """What the run began with, and what it then chose by measurement; no list of all classes."""
    known = {name: value for name, value in facts.about.items() if name != "kind"}
    chosen = {name: value for name, value in facts.choices.items() if type(value) is not list}
    return page.word_table(_flat({**known, "chosen": chosen}))


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested mappings as rows "outer: inner"."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}: {inner}", text) for inner, text in _flat(value)]
        else:
            rows.append((str(name).replace("_", " "), _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "") else str(value)
