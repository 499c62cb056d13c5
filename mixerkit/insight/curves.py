"""A run over time: loss, accuracy and learning rate, from the rows of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixerkit.insight.canvas import ACCENT, INK, QUIET, new_figure, percent, png_bytes, style


def loss_curve(rows: Sequence[Mapping[str, Any]], training: str, shared: bool = True) -> bytes:
    """Training loss and validation NLL over epochs, from the rows of `metrics.jsonl`.

    `training` says what the training loss is. With `shared=False` (a loss in other units, such
    as the sigmoid loss) each curve gets axes of its own.
    """
    with style():
        figure = new_figure(4.0, 2.8 if shared else 4.6)
        axes = [figure.subplots()] * 2 if shared else list(figure.subplots(2, sharex=True))
        seen = _series(rows, "train", "loss")
        held_out = _series(rows, "validation", "nll")
        axes[0].plot(*seen, color=QUIET, alpha=0.35, linewidth=0.9)
        axes[0].plot(seen[0], moving_mean(seen[1]), color=QUIET, label=training)
        if len(held_out[0]):
            axes[1].plot(*held_out, color=ACCENT, label="validation NLL", **_dots(held_out))
        axes[0].set_title("Loss")
        for ax, values in zip(axes, (seen[1], held_out[1]), strict=True):
            _loss_scale(ax, np.concatenate([seen[1], held_out[1]]) if shared else values)
            _legend(ax, "upper right")
        _epochs(axes[1], rows)
        return png_bytes(figure)


def _loss_scale(ax: Any, values: np.ndarray) -> None:
    """A logarithmic axis, said so, where the values span more than a factor of three."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    if not len(values) or values.min() <= 0 or values.max() < 3 * values.min():
        ax.set_ylabel("nats per image")
        return
    ax.set_yscale("log")
    ax.set_ylabel("nats per image, log scale")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())


def accuracy_curve(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Validation top-1 over epochs, and test top-1 as a point where there is one."""
    with style():
        figure = new_figure(4.0, 2.8)
        ax = figure.subplots()
        epochs, top1 = _series(rows, "validation", "top1")
        tested_at, tested = _series(rows, "test", "top1")
        if len(epochs):
            label = f"validation, last {percent(top1[-1])}"
            ax.plot(epochs, 100 * top1, color=ACCENT, label=label, **_dots((epochs, top1)))
        if len(tested_at):
            label, marks = (
                f"test {percent(tested[-1])}",
                dict(marker="D", markersize=5, linestyle=""),
            )
            ax.plot(tested_at[-1:], 100 * tested[-1:], color=INK, label=label, **marks)
        ax.set_title("Top-1 accuracy")
        ax.set_ylabel("images classified correctly, %")
        _legend(ax, "lower right")
        _epochs(ax, rows)
        return png_bytes(figure)


def learning_rate_curve(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The learning rate over epochs."""
    with style():
        from matplotlib.ticker import FormatStrFormatter, MaxNLocator

        figure = new_figure(4.0, 2.8)
        ax = figure.subplots()
        ax.plot(*_series(rows, "train", "learning_rate"), color=ACCENT)
        ax.set_title("Learning rate")
        ax.set_ylabel("learning rate")
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        _epochs(ax, rows)
        return png_bytes(figure)


def _series(
    rows: Sequence[Mapping[str, Any]], split: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, values) of the rows of that split that have a value of that name."""
    found = [(row["epoch"], row[name]) for row in rows if row["split"] == split and name in row]
    epochs, values = zip(*found, strict=True) if found else ((), ())
    return np.array(epochs, dtype=float), np.array(values, dtype=float)


def _legend(ax: Any, place: str) -> None:
    """Names of the curves, where there are any."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc=place)


def _epochs(ax: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    ax.set_xlabel("epochs")
    ax.set_xlim(0, max([row["epoch"] for row in rows], default=1) * 1.02 or 1)


def _dots(series: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Marks on curves of few points, so that a single evaluation is visible too."""
    return dict(marker="o", markersize=3.5) if len(series[0]) <= 40 else {}


def moving_mean(values: np.ndarray) -> np.ndarray:
    """A centred mean over about a fortieth of a curve of 80 points or more; windows are cut at
    both ends."""
    half = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))
