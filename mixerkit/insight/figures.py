"""What a model does, drawn as PNG bytes: classes and mistakes."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mixerkit.errors import UserError
from mixerkit.insight.canvas import (
    ACCENT,
    INK,
    QUIET,
    new_figure,
    percent,
    png_bytes,
    short,
    style,
)

PNG_URI = "data:image/png;base64,"

MOST_BARS = 30
"""Classes in the bar chart; of more, the weakest are drawn."""
MOST_CELL_TEXTS = 20
"""Classes up to which the confusion matrix writes its counts into the cells."""
MOST_NAMES = 150
"""Classes up to which the confusion matrix names its rows and columns."""


def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> bytes:
    """Rows are true classes, columns predictions; colour is the share of the row's images.

    The colour scale grows as the square root, so that rare mistakes are visible.
    """
    with style():
        from matplotlib.colors import PowerNorm

        counts_KK, K = np.array(confusion), len(class_names)
        share_KK = 100 * counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
        side = float(np.clip(0.47 * K, 4.2, 6.6) if K <= MOST_CELL_TEXTS else 9)
        figure = new_figure(side + 1.2, side + 0.6)
        ax = figure.subplots()
        image = ax.imshow(
            share_KK, cmap=_blues(), norm=PowerNorm(0.5, 0, 100), interpolation="nearest"
        )
        bar = figure.colorbar(image, ax=ax, ticks=[0, 1, 5, 20, 50, 100], shrink=0.6, aspect=28)
        bar.ax.tick_params(labelsize=8)
        bar.set_label("share of the true class, %", color=QUIET, fontsize=8)
        bar.outline.set_visible(False)
        ax.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
        ax.grid(False)
        ax.spines[:].set_visible(False)
        _name_cells(ax, class_names)
        if K <= MOST_CELL_TEXTS:
            _count_cells(ax, counts_KK, share_KK)
        return png_bytes(figure)


def _name_cells(ax: Any, class_names: Sequence[str]) -> None:
    K = len(class_names)
    if K > MOST_NAMES:
        return
    ax.tick_params(length=0, labelsize=8 if K <= MOST_CELL_TEXTS else max(3, 400 / K))
    names = [short(name, 18) for name in class_names]
    ax.set_xticks(range(K), names, rotation=45 if K <= MOST_CELL_TEXTS else 90)
    if K <= MOST_CELL_TEXTS:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(range(K), names)


def _count_cells(ax: Any, counts_KK: np.ndarray, share_KK: np.ndarray) -> None:
    """Counts in the cells; zeros stay empty."""
    size = float(np.clip(90 / len(counts_KK), 5, 8))
    for row, column in zip(*np.nonzero(counts_KK), strict=True):
        colour = "white" if share_KK[row, column] > 30 else INK
        text = f"{counts_KK[row, column]}"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _blues() -> Any:
    """White to the accent colour to ink."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blues", ["#ffffff", "#c3d6f5", ACCENT, "#12305f"])


def class_recall(per_class: Sequence[Mapping[str, Any]], top1: float) -> bytes:
    """One bar for each class: the share of its images that are found; the weakest last.

    Classes without images are left out. A line marks the accuracy over all images.
    """
    with style():
        known = [row for row in per_class if row["recall"] is not None]
        known = sorted(known, key=lambda row: -float(row["recall"]))[-MOST_BARS:]
        pitch = float(np.clip(4.1 / max(len(known), 1), 0.24, 0.41))  # as high as the matrix
        figure = new_figure(5.6, 0.9 + pitch * max(len(known), 3))
        ax = figure.subplots()
        recalls = [100 * row["recall"] for row in known]
        ax.barh(range(len(known)), recalls, color=ACCENT, height=0.66)
        ax.set_yticks(range(len(known)), [short(row["name"], 24) for row in known])
        for place, recall in enumerate(recalls):
            ax.text(109, place, f"{recall:.1f}", ha="right", va="center", fontsize=8)
        ax.axvline(100 * top1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.set_title(_recall_title(len(known), len(per_class)))
        ax.set_xlabel(f"recall, %   (dashed: all images together, {percent(top1)})")
        ax.set(xlim=(0, 109), ylim=(len(known) - 0.4, -0.6), xticks=range(0, 101, 20))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        return png_bytes(figure)


def _recall_title(drawn: int, classes: int) -> str:
    if drawn == classes:
        return "Recall by class"
    return f"Recall by class: the weakest {drawn} of {classes}"


def mistakes_sheet(mistakes: Sequence[Mapping[str, Any]]) -> bytes:
    """Wrongly classified images, each with 'true → predicted' and the model's probability."""
    with style():
        columns = min(6, max(len(mistakes), 1))
        rows = -(-len(mistakes) // columns) or 1
        figure = new_figure(1.45 * columns, 1.85 * rows + 0.4)
        figure.suptitle("Most confident mistakes", x=0.01, ha="left", fontsize=10, weight="bold")
        for ax in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
            ax.set_axis_off()
        for ax, mistake in zip(grid.flat, mistakes, strict=False):
            picture = decode_image(str(mistake["image"]))
            ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            true, predicted = short(mistake["true"], 18), short(mistake["predicted"], 16)
            text = f"{true}\n→ {predicted}\n{percent(mistake['probability'])}"
            ax.text(0.5, -0.05, text, transform=ax.transAxes, ha="center", va="top", fontsize=7)
        return png_bytes(figure)


def decode_image(uri: str) -> np.ndarray:
    """The pixels [H, W] or [H, W, 3] (uint8) of a PNG in a data URI."""
    if not uri.startswith(PNG_URI):
        raise UserError(f"Expected an image as '{PNG_URI}…', found {uri[:40]!r}.")
    content = io.BytesIO(base64.b64decode(uri.removeprefix(PNG_URI)))
    with Image.open(content, formats=["PNG"]) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
