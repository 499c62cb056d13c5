"""Token mixing, drawn: structure by depth, which token adds to which, where a prediction looks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixerkit.insight.canvas import ACCENT, INK, QUIET, image_bytes, new_figure, style
from mixerkit.insight.units import BANDS, LOCAL, OPPOSITE, Structure


def structure_chart(blocks: Sequence[Structure], kind: str = "png") -> bytes:
    """Four panels over depth: local units, units with a partner of opposite phase beside the
    shuffled baseline, smoothness, and energy by spatial frequency beside that of noise."""
    with style():
        figure = new_figure(9.6, 2.9)
        panels = figure.subplots(1, 4)
        depth = [one.block + 1 for one in blocks]
        dots: dict[str, Any] = dict(marker="o", markersize=3.5)
        panels[0].plot(depth, [100 * one.local for one in blocks], color=ACCENT, **dots)
        panels[0].set(title="Local units, %", ylim=(-4, 104))
        panels[0].set_xlabel(f"block (local: spread below {LOCAL:g})")
        pairs = [100 * one.partners for one in blocks]
        chance = [100 * one.partners_shuffled for one in blocks]
        panels[1].plot(depth, pairs, color=ACCENT, label="as learned", **dots)
        panels[1].plot(depth, chance, color=QUIET, linestyle="--", label="shuffled", **dots)
        panels[1].set(title="With an opposite, %", ylim=(-4, 104))
        panels[1].set_xlabel(f"block (cosine below {OPPOSITE:g})")
        panels[1].legend()
        panels[2].plot(depth, [one.smoothness for one in blocks], color=ACCENT, **dots)
        panels[2].axhline(0, color=QUIET, linewidth=0.8)
        panels[2].set(title="Smoothness", xlabel="block (noise has 0)")
        _energies(panels[3], blocks)
        for panel in panels[:3]:
            panel.xaxis.get_major_locator().set_params(integer=True)
        return image_bytes(figure, kind)


def _energies(panel: Any, blocks: Sequence[Structure]) -> None:
    """First and last block, and white noise, over the bands."""
    bands = np.arange(1, BANDS + 1)
    drawn = {f"block {one.block + 1}": one.energy for one in (blocks[0], blocks[-1])}
    for (label, energy), colour in zip(drawn.items(), (ACCENT, INK), strict=False):
        panel.plot(bands, [100 * share for share in energy], color=colour, label=label, marker="o",
                   markersize=3.5)  # fmt: skip
    noise = [100 * share for share in blocks[0].energy_of_noise]
    panel.plot(bands, noise, color=QUIET, linestyle="--", label="noise")
    panel.set(title="Energy, %", xlabel="band, low to high frequency")
    panel.legend()


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
