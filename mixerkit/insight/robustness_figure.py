"""Accuracy under spoiled images, shuffled patches and other sizes: the figure of
`mixer evaluate --protocol robustness`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixerkit.insight.canvas import ACCENT, QUIET, new_figure, png_bytes, short, style

Row = dict[str, Any]

LINES = {
    "blur": ("gaussian blur", ACCENT, "o"),
    "noise": ("gaussian noise", "#d95f02", "s"),
    "jpeg": ("JPEG", "#1b9e77", "^"),
}
WAYS = {"resample": ("token mixing resampled", "-", "o"), "shared": ("cut into tiles", "", "D")}
CAPTION = "Bands and bars: 95 % intervals of the difference from clean."


def figure(rows: Sequence[Row], title: str, classes: int) -> bytes:
    """A panel for each of the three that was measured, side by side. Bands and bars are 95 %
    intervals of the difference from clean, which has none; the dotted line is chance.

    `rows`: as of `mixerkit.evaluation.robustness`, the first of which is clean.
    """
    panels = (
        (draw_severities, [row for row in rows if row["kind"] in LINES]),
        (draw_shares, [row for row in rows if row["kind"] == "shuffle"]),
        (draw_sizes, [row for row in rows if row["kind"] == "size"]),
    )
    drawn = [(draw, own) for draw, own in panels if own]
    with style():
        canvas = new_figure(0.6 + 3.1 * len(drawn), 3.6)
        axes = canvas.subplots(1, len(drawn), squeeze=False)[0]
        for panel, (draw, own) in zip(axes, drawn, strict=True):
            draw(panel, rows[0], own)
            panel.set_ylim(0, 100)  # one scale, so that panels can be compared
            _chance(panel, 100 / classes)
        axes[0].set_ylabel("top-1 accuracy, %")
        canvas.suptitle(short(title, 45 * len(drawn)), x=0.01, ha="left", fontsize=9)
        canvas.supxlabel(CAPTION, x=0.01, ha="left", fontsize=7, color=QUIET)
        return png_bytes(canvas)


def _chance(panel: Any, percent: float) -> None:
    """What guessing gives, named outside of the panel, where nothing is drawn over it."""
    panel.axhline(percent, color=QUIET, linewidth=0.8, linestyle=(0, (1, 3)))
    panel.annotate(
        "chance", (1, percent), (3, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=7, color=QUIET, annotation_clip=False,
    )  # fmt: skip


def draw_severities(panel: Any, clean: Row, rows: Sequence[Row]) -> None:
    """A line for each corruption, from the clean images on."""
    for kind, (label, colour, mark) in LINES.items():
        own = [row for row in rows if row["kind"] == kind]
        if own:
            _line(panel, "severity", [clean, *own], colour, mark, label)
    panel.set_xlabel("severity (0: clean)")
    panel.set_xticks(range(6))
    panel.set_title("Images spoiled")
    _legend(panel, columns=3)


def _legend(panel: Any, columns: int) -> None:
    """Under the panel, where it lies over no line."""
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, columnspacing=1.0,
        handlelength=1.5, borderaxespad=0.0,
    )  # fmt: skip


def draw_shares(panel: Any, clean: Row, rows: Sequence[Row]) -> None:
    """Accuracy over the share of the patches that changed places."""
    _line(panel, "strength", [clean, *rows], ACCENT, "o", "")
    ticks = [0.0, *(row["strength"] for row in rows)]
    panel.set_xticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
    panel.set_xlabel("patches that changed places, %")
    panel.set_title("Patches shuffled")


def draw_sizes(panel: Any, clean: Row, rows: Sequence[Row]) -> None:
    """Accuracy over the image's height; the model's own size is marked."""
    for way, (label, line, mark) in WAYS.items():
        own = [row for row in rows if row["enlargement"] == way]
        if way == "resample":
            own = sorted([clean, *own], key=_side)
        if own:
            top1 = [100 * row["top1"] for row in own]
            bars = np.abs(np.array([_ends(row) for row in own]).T - top1)
            panel.errorbar(
                [_side(row) for row in own], top1, yerr=bars, label=label,
                color=ACCENT, linestyle=line, marker=mark, markersize=4,
                markerfacecolor="white" if way == "shared" else ACCENT,
            )  # fmt: skip
    panel.axvline(_side(clean), color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1.5)
    sides = sorted({_side(row) for row in (clean, *rows)})
    panel.set_xticks(sides, [str(side) for side in sides])
    panel.set_xlabel("image height, px (dashed: the model's own)")
    panel.set_title("Other image sizes")
    _legend(panel, columns=2)


def _side(row: Row) -> int:
    return int(row["image_size"][0])


def _line(panel: Any, across: str, rows: Sequence[Row], colour: str, mark: str, label: str) -> None:
    """Top-1 over `across`, in a band of its interval."""
    x, top1 = [row[across] for row in rows], [100 * row["top1"] for row in rows]
    lower, upper = zip(*map(_ends, rows), strict=True)
    panel.plot(x, top1, color=colour, marker=mark, markersize=4, label=label)
    panel.fill_between(x, lower, upper, color=colour, alpha=0.15, linewidth=0)


def _ends(row: Row) -> tuple[float, float]:
    """Where a row's interval ends, in per cent, cut off at 0 and 100."""
    half = row["drop_half_width"] or 0
    return 100 * max(0, row["top1"] - half), 100 * min(1, row["top1"] + half)
