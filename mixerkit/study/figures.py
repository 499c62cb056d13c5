"""A study, drawn from its averages: who is best, at what cost, over what is varied, over time."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mixerkit.insight.canvas import QUIET, RULE, new_figure, png_bytes, style
from mixerkit.study.arms import Row, ranked_by

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7480")
"""Okabe and Ito's, told apart by almost everybody."""
MARKS = "os^DvPX"
FLOOR = "identity"
"""The token mixer that mixes nothing."""


def figures(arms: list[Row]) -> dict[str, bytes]:
    """Name → picture of what the study lends itself to: "ranking"; "cost" where one thing was
    varied and something that it costs differs; "levels" where the last factor is a number; "course"
    where runs were measured more than once."""
    if any(arm[ranked_by(arms)] is None for arm in arms):
        return {}
    factors = list(arms[0]["levels"])
    drawn = {"ranking": ranking(arms)}
    costs = differing(arms)
    if len(factors) == 1 and costs:
        drawn["cost"] = against_cost(arms, costs)
    if len(factors) > 1 and all(number_of(arm["levels"][factors[-1]]) is not None for arm in arms):
        drawn["levels"] = over_levels(arms)
    if all("course" in arm for arm in arms):
        drawn["course"] = over_time(arms)
    return drawn


def number_of(level: str) -> float | None:
    """The number that a level is, also one of per cent; None for words."""
    try:
        return float(level.rstrip(" %"))
    except ValueError:
        return None


def label_of(arm: Row) -> str:
    """What an arm is called: its levels."""
    return ", ".join(arm["levels"].values())


def family_of(arm: Row) -> str:
    """The same without a number at its end, by which sizes of one thing differ."""
    return re.sub(r"[ ,]*[0-9.]+$", "", label_of(arm)) or label_of(arm)


def ranking(arms: list[Row]) -> bytes:
    """A line for each arm, the best on top: the mean, its 95 % interval, each seed."""
    figure_name = ranked_by(arms)
    ordered = sorted(arms, key=lambda arm: float(arm[figure_name]))
    with style():
        figure = new_figure(6.4, 0.9 + 0.26 * len(arms))
        panel = figure.subplots()
        for place, arm in enumerate(ordered):
            each = [100 * one[figure_name] for one in arm["each"]]
            panel.plot(each, [place] * len(each), "|", color=QUIET, markersize=7)
            half = arm[f"{figure_name}_half_width"]
            panel.errorbar(
                100 * arm[figure_name], place, xerr=100 * half if half else None,
                fmt="o", color=COLOURS[0], markersize=5, linewidth=1.2,
            )  # fmt: skip
        floor = [arm for arm in arms if label_of(arm) == FLOOR]
        for arm in floor:
            panel.axvline(100 * arm[figure_name], color=QUIET, linestyle="--", linewidth=0.9)
        panel.set_yticks(range(len(ordered)), [label_of(arm) for arm in ordered])
        dashed = "; dashed: no mixing at all" if floor else ""
        panel.set_xlabel(f"{axis_of(figure_name)} (mean, 95 % interval, each seed{dashed})")
        panel.grid(axis="y", visible=False)
        return png_bytes(figure)


def axis_of(figure_name: str) -> str:
    """An accuracy on an axis."""
    return f"{figure_name.replace('_', ' ').replace('held out', 'held-out')}, %"


Number = Callable[[Row], float]
COSTS: dict[str, Number] = {
    "multiply-adds of an image, millions": lambda arm: arm["macs"] / 1e6,
    "parameters, thousands": lambda arm: arm["parameters"] / 1e3,
    "measured time of an image, ms": lambda arm: 1e3 / arm["images_per_second"],
    "measured time of forward and backward, ms a batch": lambda arm: 1e3 * arm["step_seconds"],
}
"""The last: where all arms take equally many steps it is the cost of training, too."""
EQUAL = 1.1
"""Costs that differ by less are those of a match, or noise."""


def differing(arms: list[Row]) -> dict[str, Number]:
    """The costs that are worth an axis."""
    extremes = {name: (min(map(cost, arms)), max(map(cost, arms))) for name, cost in COSTS.items()}
    return {name: COSTS[name] for name, (low, high) in extremes.items() if high > EQUAL * low}


def against_cost(arms: list[Row], costs: dict[str, Number]) -> bytes:
    """Accuracy against each cost; sizes of one family are joined, and the arms that nothing
    cheaper beats lie on the grey line."""
    figure_name = ranked_by(arms)
    families: dict[str, list[Row]] = {}
    for arm in arms:
        families.setdefault(family_of(arm), []).append(arm)
    with style():
        lines = (len(costs) + 1) // 2
        figure = new_figure(9.6, 2.8 * lines)
        panels = figure.subplots(lines, 2, sharey=True, squeeze=False)
        for panel in panels.flat[len(costs) :]:
            panel.remove()
        for panel, (name, amount) in zip(panels.flat, costs.items(), strict=False):
            _frontier(panel, [(amount(arm), 100 * arm[figure_name]) for arm in arms])
            for number, (family, some) in enumerate(families.items()):
                some = sorted(some, key=amount)
                panel.plot(
                    [amount(arm) for arm in some],
                    [100 * arm[figure_name] for arm in some],
                    color=COLOURS[number % len(COLOURS)],
                    marker=MARKS[(number + number // len(COLOURS)) % len(MARKS)],
                    markersize=5, linewidth=1.1, label=family,
                )  # fmt: skip
            _cost_axis(panel, name, [amount(arm) for arm in arms])
        for panel in panels[:, 0]:
            panel.set_ylabel(axis_of(figure_name))
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center")
        return png_bytes(figure)


def _frontier(panel: Any, points: list[tuple[float, float]]) -> None:
    best, steps = -np.inf, []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            steps.append((cost, accuracy))
            best = accuracy
    panel.step(
        *zip(*steps, strict=True), where="post", color=RULE, linewidth=5, zorder=0,
        label="nothing cheaper is better",
    )  # fmt: skip


def _cost_axis(panel: Any, name: str, amounts: list[float]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    panel.set_xlabel(name)
    if min(amounts) > 0 and max(amounts) > 3 * min(amounts):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))


def over_levels(arms: list[Row]) -> bytes:
    """Accuracy over the last factor, whose levels are numbers; a line for what the others say."""
    figure_name, last = ranked_by(arms), list(arms[0]["levels"])[-1]
    lines: dict[str, list[tuple[float, Row]]] = {}
    for arm in arms:
        lines.setdefault(_without(arm, last), []).append(
            (number_of(arm["levels"][last]) or 0.0, arm)
        )
    with style():
        figure = new_figure(6.2, 3.4)
        panel = figure.subplots()
        for number, (label, points) in enumerate(lines.items()):
            points = sorted(points, key=lambda point: point[0])
            panel.errorbar(
                [number for number, _ in points],
                [100 * arm[figure_name] for _, arm in points],
                yerr=[100 * (arm[f"{figure_name}_half_width"] or 0) for _, arm in points],
                color=COLOURS[number % len(COLOURS)], marker=MARKS[number % len(MARKS)],
                markersize=4.5, linewidth=1.4, elinewidth=0.9, label=label,
            )  # fmt: skip
        numbers = sorted({number for points in lines.values() for number, _ in points})
        labels = {number_of(arm["levels"][last]): arm["levels"][last] for arm in arms}
        if numbers[0] > 0 and numbers[-1] > 10 * numbers[0]:
            panel.set_xscale("log")
        panel.set_xticks(numbers, [labels[number] for number in numbers])
        panel.minorticks_off()
        panel.set_xlabel(last.rpartition(".")[2])
        panel.set_ylabel(axis_of(figure_name))
        figure.legend(*panel.get_legend_handles_labels(), loc="outside right center")
        return png_bytes(figure)


def over_time(arms: list[Row]) -> bytes:
    """Held-out accuracy over the epochs: a panel for each level of the last factor."""
    factors = list(arms[0]["levels"])
    split = factors[-1] if len(factors) > 1 else ""
    panels: dict[str, list[Row]] = {}
    for arm in arms:
        panels.setdefault(arm["levels"].get(split, ""), []).append(arm)
    names = list(dict.fromkeys(_without(arm, split) for arm in arms))
    with style():
        figure = new_figure(2.7 * len(panels) + 1.6, 3.0)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for panel, (title, some) in zip(axes, panels.items(), strict=True):
            for arm in some:
                epochs, top1 = np.array(arm["course"]).T
                number = names.index(_without(arm, split))
                panel.plot(
                    epochs, 100 * top1, label=names[number], color=COLOURS[number % len(COLOURS)],
                    marker=MARKS[number % len(MARKS)], markersize=3.5,
                )  # fmt: skip
            panel.set(title=f"{split.rpartition('.')[2]}: {title}" if split else "",
                      xlabel="epochs")  # fmt: skip
        axes[0].set_ylabel(axis_of("held_out_accuracy"))
        shown = dict(pair[::-1] for panel in axes for pair in zip(*legend_of(panel), strict=True))
        figure.legend(shown.values(), shown.keys(), loc="outside right center")
        return png_bytes(figure)


def _without(arm: Row, factor: str) -> str:
    """What the other levels of an arm say."""
    others = [level for name, level in arm["levels"].items() if name != factor]
    return ", ".join(others) or label_of(arm)


def legend_of(panel: Any) -> tuple[list[Any], list[str]]:
    """Lines and labels of a panel."""
    handles, labels = panel.get_legend_handles_labels()
    return list(handles), list(labels)
