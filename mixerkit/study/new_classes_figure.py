"""The figure of `mixer bench transfer`."""

from typing import Any

from mixerkit.insight.canvas import new_figure, png_bytes, style
from mixerkit.study.figures import COLOURS, MARKS


def figure(rows: list[dict[str, Any]]) -> bytes:
    """Left, probes by the number of shots; right, fine-tuning."""
    with style():
        canvas = new_figure(9.6, 3.6)
        probes, tuning = canvas.subplots(1, 2, width_ratios=(1.3, 1))
        names = list(dict.fromkeys(row["what"] for row in rows))
        for number, what in enumerate(names):
            own = [row for row in rows if (row["part"], row["what"]) == ("probe", what)]
            if own:
                aside = 1 + 0.04 * (number - 1.5)  # so that intervals do not cover each other
                probes.errorbar(
                    [aside * row["shots"] for row in own], [100 * row["accuracy"] for row in own],
                    yerr=[100 * (row["half_width"] or 0) for row in own], label=what,
                    color=COLOURS[number], marker=MARKS[number], markersize=4.5, elinewidth=0.9,
                )  # fmt: skip
        shots = sorted({row["shots"] for row in rows if row["part"] == "probe"})
        probes.set_xscale("log")
        probes.set_xticks(shots, [str(count) for count in shots])
        probes.minorticks_off()
        probes.set(title="Linear probe", xlabel="images of each new class")
        probes.set_ylabel("held-out accuracy on three new classes, %")
        canvas.legend(*probes.get_legend_handles_labels(), loc="outside lower left", ncols=4)
        _tuning(tuning, [row for row in rows if row["part"] == "fine-tuning"], names)
        return png_bytes(canvas)


def _tuning(panel: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    for place, row in enumerate(reversed(rows)):
        number = names.index(row["what"])
        each = [100 * value for value in row["each"]]
        panel.plot(each, [place] * len(each), "|", color=COLOURS[number], markersize=8)
        panel.errorbar(
            100 * row["accuracy"], place,
            xerr=100 * row["half_width"] if row["half_width"] else None,
            fmt=MARKS[number], color=COLOURS[number], markersize=5,
        )  # fmt: skip
    panel.set_yticks(range(len(rows)), [row["what"] for row in reversed(rows)])
    count = rows[0]["shots"] if rows else 0
    panel.set(title=f"Fine-tuned on {count} of each", xlabel="held-out accuracy, %")
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.grid(axis="y", visible=False)
