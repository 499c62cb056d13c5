"""The rows of a study, averaged over seeds: means with intervals."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import numpy as np

from mixerkit.evaluation.interval import half_width
from mixerkit.study.grid import Configuration

Row = dict[str, Any]

FIGURES = ("held_out_accuracy", "test_accuracy", "training_loss")


def averaged(rows: list[tuple[Configuration, Row]]) -> list[Row]:
    """A row for each arm, in the order of the configurations: its levels, mean figures with half of
    their 95 % intervals, costs, and what each seed gave. Runs that failed are left out."""
    arms: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for one, row in rows:
        if "error" not in row:
            arms.setdefault(tuple(one.arm.items()), []).append(row)
    return [_average(dict(levels), some) for levels, some in arms.items()]


def _average(levels: dict[str, str], rows: list[Row]) -> Row:
    found: Row = {**levels, "levels": levels, "runs": len(rows)}
    for name in FIGURES:
        values = [row[name] for row in rows]
        known = None not in values
        found[name] = mean(values) if known else None
        found[f"{name}_half_width"] = half_width(values) if known else None
    found |= {name: rows[0][name] for name in ("parameters", "macs", "training_macs")}
    found["seconds"] = median(row["seconds"] for row in rows)
    each = ("seed", "held_out_accuracy", "test_accuracy", "seconds")
    found["each"] = [{name: row[name] for name in each} for row in rows]
    return found | _course([row.get("course", []) for row in rows])


def _course(courses: list[list[list[float]]]) -> Row:
    """The mean held-out accuracy over the epochs, where all runs were measured more than once, at
    the same epochs."""
    epochs = [[epoch for epoch, _ in course] for course in courses]
    if not epochs[0] or any(each != epochs[0] for each in epochs):
        return {}
    points = zip(*courses, strict=True)
    return {"course": [[some[0][0], mean(top1 for _, top1 in some)] for some in points]}


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: 1 where both put things into the same order, -1 where into the opposite; values
    that are equal share their ranks."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    below = (array[:, None] > array).sum(axis=1)
    equal = (array[:, None] == array).sum(axis=1)
    return np.asarray(below + (equal - 1) / 2)


def ranked_by(arms: list[Row]) -> str:
    """The figure that arms are compared by: the accuracy on held-out images, or on the test images
    where some run held none out."""
    held_out = all(arm["held_out_accuracy"] is not None for arm in arms)
    return "held_out_accuracy" if held_out else "test_accuracy"
