"""Token mixing, drawn: structure by depth, which token adds to which, where a prediction looks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixerkit.insight.canvas import ACCENT, INK, QUIET, image_bytes, new_figure, style
from mixerkit.insight.units import BANDS, LOCAL, OPPOSITE, WIDE, Structure

DOTS: dict[str, Any] = {"marker": "o", "markersize": 3.5}


def structure_chart(blocks: Sequence[Structure], kind: str = "png") -> bytes:
    """Four panels over depth: units that are wide and units that are local, units with a partner of
    opposite phase, smoothness, and energy by spatial frequency. Dashed: the same units shuffled, or
    noise."""
    with style():
        figure = new_figure(9.6, 3.1)
        panels = figure.subplots(1, 4)
        for name, colour in (("wide", INK), ("local", ACCENT)):
            _over_depth(panels[0], blocks, name, colour, name, scale=100)
        panels[0].set(title="Wide and local, %", ylim=(-4, 104))
        panels[0].set_xlabel(f"block (spread above {WIDE:g}, below {LOCAL:g})")
        _over_depth(panels[1], blocks, "partners", ACCENT, "as learned", scale=100)
        panels[1].set(title="With an opposite, %", ylim=(-4, 104))
        panels[1].set_xlabel(f"block (cosine below {OPPOSITE:g})")
        _over_depth(panels[2], blocks, "smoothness", ACCENT, "as learned")
        lowest = min(-0.2, *(one.smoothness for one in blocks))
        panels[2].set(title="Smoothness", xlabel="block", ylim=(lowest, 1))
        _energies(panels[3], blocks)
        for panel in panels:
            _legend_below(panel)
        return image_bytes(figure, kind)


def _over_depth(
    panel: Any, blocks: Sequence[Structure], name: str, colour: str, label: str, scale: float = 1
) -> None:
    """A figure over the blocks, and dashed the same of shuffled units."""
    depth = range(1, len(blocks) + 1)
    learned = [scale * getattr(one, name) for one in blocks]
    shuffled = [scale * getattr(one, f"{name}_shuffled") for one in blocks]
    panel.plot(depth, learned, color=colour, label=label, **DOTS)
    panel.plot(depth, shuffled, color=colour, alpha=0.5, linestyle="--", label="shuffled", **DOTS)
    panel.xaxis.get_major_locator().set_params(integer=True)


def _legend_below(panel: Any) -> None:
    """Under the axis, where it hides nothing; each name once, the baseline last."""
    lines = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    names = sorted(lines, key=lambda name: name == "shuffled")
    panel.legend(
        [lines[name] for name in names], names, loc="upper center", bbox_to_anchor=(0.45, -0.22),
        ncols=len(lines), columnspacing=0.8, handlelength=1.4, handletextpad=0.4,
    )  # fmt: skip


def _energies(panel: Any, blocks: Sequence[Structure]) -> None:
    """First and last block, and white noise, over the bands; on a small grid some hold nothing."""
    noise = 100 * np.array(blocks[0].energy_of_noise)
    held = noise > 0
    bands = np.arange(1, BANDS + 1)[held]
    drawn = {f"block {number}": blocks[number - 1].energy for number in (1, len(blocks))}
    for (label, energy), colour in zip(drawn.items(), (ACCENT, INK), strict=False):
        panel.plot(bands, 100 * np.array(energy)[held], color=colour, label=label, **DOTS)
    panel.plot(bands, noise[held], color=QUIET, linestyle="--", label="noise")
    panel.set(title="Energy, %", xlabel="band, low to high frequency", ylim=(0, None))


def mixing_matrix(matrix_SS: np.ndarray, title: str, kind: str = "png") -> bytes:
    """Row s, column t: what token t adds to token s; red adds, blue takes away."""
    with style():
        figure = new_figure(4.6, 4.6)
        panel = figure.subplots()
        largest = float(np.abs(matrix_SS).max()) or 1.0
        panel.imshow(matrix_SS, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        panel.set(title=title, xlabel="from token (raster order)", ylabel="to token")
        panel.grid(False)
        return image_bytes(figure, kind)


def influence_picture(
    picture_IHW: np.ndarray, falls: np.ndarray, title: str, kind: str = "png"
) -> bytes:
    """The image, uint8 [I, H, W], and beside it the same under a map of `influence`."""
    with style():
        figure = new_figure(6.4, 3.4)
        panels = figure.subplots(1, 2)
        grey = picture_IHW.astype(float).mean(axis=0)
        plain = picture_IHW.transpose(1, 2, 0) if len(picture_IHW) == 3 else grey
        panels[0].imshow(plain, cmap="gray", vmin=0, vmax=255)
        panels[0].set_title("what the model sees")
        panels[1].imshow(grey, cmap="gray", vmin=0, vmax=255)
        height, width = grey.shape
        largest = float(np.abs(falls).max()) or 1.0
        shown = panels[1].imshow(
            falls, cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.6, interpolation="nearest",
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )  # fmt: skip
        panels[1].set_title(title)
        bar = figure.colorbar(shown, ax=panels[1], shrink=0.7)
        bar.set_label("fall of the logit without the patch", color=QUIET, fontsize=8)
        bar.outline.set_visible(False)
        for panel in panels:
            panel.axis("off")
        return image_bytes(figure, kind)
