"""The figure of robustness: what is written lies over no line, and panels can be compared."""

import pytest

from mixerkit.insight import robustness_figure
from mixerkit.insight.robustness_figure import figure


def row(kind: str, severity: int, top1: float, **more) -> dict:
    return {
        "kind": kind, "severity": severity, "strength": severity / 5, "image_size": [28, 28],
        "enlargement": None, "top1": top1, "drop_half_width": 0.05,
    } | more  # fmt: skip


CLEAN = row("clean", 0, 0.98, drop_half_width=0.0)
SPOILED = [row(kind, i, 0.98 - i / 6) for kind in ("blur", "noise", "jpeg") for i in range(1, 6)]
SHUFFLED = [row("shuffle", i, 0.9 - i / 4) for i in (1, 2, 3)]
SIZES = [row("size", 1, 0.02, image_size=[14, 14], enlargement="resample"),
         row("size", 2, 0.97, image_size=[56, 56], enlargement="shared")]  # fmt: skip


@pytest.fixture
def panels(monkeypatch):
    """What is drawn of some rows, laid out."""

    def drawn(rows):
        kept = []
        plain = robustness_figure.png_bytes
        monkeypatch.setattr(
            robustness_figure, "png_bytes", lambda canvas: (kept.append(canvas), plain(canvas))[1]
        )
        assert figure(rows, "a model", 10).startswith(b"\x89PNG")
        return kept[0].axes

    return drawn


@pytest.mark.parametrize("rows", [SPOILED, SIZES, [*SPOILED, *SHUFFLED, *SIZES]])
def test_legends_lie_under_their_panels(panels, rows):
    found = panels([CLEAN, *rows])
    legends = [panel.get_legend() for panel in found if panel.get_legend()]
    assert legends
    for panel in found:
        if legend := panel.get_legend():
            box, frame = legend.get_window_extent(), panel.get_window_extent()
            label = panel.xaxis.label.get_window_extent()
            assert box.y1 < label.y0 < frame.y0
            assert box.x0 >= 0 and box.x1 <= panel.figure.bbox.x1


def test_all_panels_have_one_scale_and_say_what_chance_is(panels):
    found = panels([CLEAN, *SPOILED, *SHUFFLED, *SIZES])
    assert len(found) == 3
    for panel in found:
        assert panel.get_ylim() == (0, 100)
        assert [text.get_text() for text in panel.texts] == ["chance"]


def test_bands_and_bars_end_at_0_and_100(panels):
    found = panels([CLEAN, *[row("blur", 1, 0.99), row("blur", 2, 0.01)], *SIZES])
    band = found[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == 100 and band.min() == 0
    bars = [part for panel in found[1:] for part in panel.collections]
    ends = [y for bar in bars for segment in bar.get_segments() for _, y in segment]
    assert min(ends) == 0 and max(ends) == 100
