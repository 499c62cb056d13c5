"""The figure of `mixer bench throughput`: speed by cost, and cost by the number of patches."""

from collections.abc import Sequence
from math import log10
from typing import Any

from mixerkit.insight.canvas import ACCENT, QUIET, new_figure, png_bytes, style

Row = dict[str, Any]

COLOURS = {
    "Mixer": ACCENT,
    "ViT": "#d95f02",
    "ResNet": "#1b9e77",
    "BiT": "#7570b3",
    "BotNet": "#e7298a",
    "HaloNet": "#a6761d",
    "NFNet": "#66a61e",
}
LINES = {
    "Mixer, token width kept": (ACCENT, "-", "o"),
    "Mixer, dense": ("#7570b3", "--", "s"),
    "Mixer, shared tiles": ("#1b9e77", ":", "D"),
    "ViT": (COLOURS["ViT"], "-", "^"),
}
"""Colour, line and mark of each family of the part "patches"."""


def figure(rows: Sequence[Row]) -> bytes:
    """Left, every model once; right, four families over the number of patches."""
    with style():
        canvas = new_figure(11.5, 5.0)
        speed, growth = canvas.subplots(1, 2, width_ratios=(1.5, 1))
        by_title = {row["title"]: row for row in reversed(rows) if row["part"] == "models"}
        draw_speed(speed, [beside_anchor(row, rows) for row in by_title.values()])
        draw_growth(growth, rows)
        return png_bytes(canvas)


def beside_anchor(row: Row, rows: Sequence[Row]) -> Row:
    """The row with images per second as in the first group's batches: its ratio to Mixer-B/16 in
    the same batches, times the speed of that there."""
    anchor = next(one for one in rows if one["part"] == "models")
    return row | {"images_per_second": row["ratio"] * anchor["images_per_second"]}


def draw_speed(panel: Any, models: Sequence[Row]) -> None:
    """Images per second over multiply-adds. Below the dashed line a multiply-add takes longer than
    in Mixer-B/16."""
    logarithmic(panel)
    for family, colour in COLOURS.items():
        own = [row for row in models if row["family"] == family]
        if own:
            points = [(row["gmacs"], row["images_per_second"]) for row in own]
            inside = ["white" if row["stand_in"] else colour for row in own]
            panel.scatter(*zip(*points, strict=True), s=18, c=inside, edgecolors=colour, zorder=3)
            panel.scatter([], [], s=18, color=colour, label=family)
    drawn: list[Row] = []
    for row in sorted(models, key=lambda row: -float(row["images_per_second"])):
        draw_label(panel, row, 7 * sum(meets(row, other) for other in drawn))
        drawn.append(row)
    panel.scatter([], [], s=18, c="white", edgecolors=QUIET, label="stands in for a published one")
    (anchor,) = (row for row in models if row["title"] == "Mixer-B/16 at 224 px")
    ends = [min(row["gmacs"] for row in models), max(row["gmacs"] for row in models)]
    rate = anchor["gmacs"] * anchor["images_per_second"]
    panel.plot(ends, [rate / end for end in ends], color=QUIET, linewidth=0.8, linestyle="--",
               label="multiply-adds as fast as Mixer-B/16's")  # fmt: skip
    panel.set_xlabel("billion multiply-adds an image")
    panel.set_ylabel("images per second on this CPU (by the ratio to Mixer-B/16)")
    panel.set_title("speed by cost")
    panel.margins(x=0.09)
    panel.legend(fontsize=7, loc="lower left")


def logarithmic(panel: Any) -> None:
    """Both axes, with plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    panel.set_xscale("log")
    panel.set_yscale("log")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FormatStrFormatter("%g"))


def meets(row: Row, other: Row) -> bool:
    """Whether the labels of two models would be one over the other."""
    sides = [one["family"] == "Mixer" for one in (row, other)]
    across, down = (abs(log10(row[name] / other[name])) for name in ("gmacs", "images_per_second"))
    return sides[0] == sides[1] and across < 0.25 and down < 0.06


def draw_label(panel: Any, row: Row, lower: float) -> None:
    """The model's size, and that of its images where it is not 224 px: a Mixer's to the right of
    its point, others' to the left; `lower` by so many points."""
    colour = COLOURS[row["family"]]
    text = row["name"].partition("-")[2]
    if row["image_size"] != 224:
        text += f" {row['image_size']} px"
    if row["form"]:
        text += {"dense": " dense", "shared": " tiles"}[row["form"]]
    ours = row["family"] == "Mixer"
    offset = (5 if ours else -5, (1 if ours else -1) - lower)
    panel.annotate(
        text, (row["gmacs"], row["images_per_second"]), offset,
        textcoords="offset points", fontsize=6, color=colour,
        ha="left" if ours else "right", va="bottom" if ours else "top",
    )  # fmt: skip


def draw_growth(panel: Any, rows: Sequence[Row]) -> None:
    """Seconds for one image over the number of patches; the legend has the exponents."""
    logarithmic(panel)
    for found in (row for row in rows if row["part"] == "exponents"):
        family = found["family"]
        own = [row for row in rows if row["part"] == "patches" and row["family"] == family]
        colour, line, mark = LINES[family]
        panel.plot(
            [row["patches"] for row in own], [row["seconds"] for row in own],
            color=colour, linestyle=line, marker=mark, markersize=4,
            label=f"{family}: time {found['seconds']:.2f}, multiply-adds {found['macs']:.2f}",
        )  # fmt: skip
    ticks = sorted({row["patches"] for row in rows if row["part"] == "patches"})
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.set_xlabel("patches")
    panel.set_ylabel("seconds an image")
    panel.set_title("B/16 by the number of patches")
    panel.legend(title="exponent of the patches in", title_fontsize=8, fontsize=7)
