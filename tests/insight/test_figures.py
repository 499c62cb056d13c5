"""Figures are valid images of the promised size, for few and many classes, without warnings."""

import base64
import io
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixerkit.errors import UserError
from mixerkit.insight import curves, figures
from mixerkit.insight.canvas import percent, short
from tests.insight.runs import evaluation, grey_uri, metric_rows


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.load()
        assert image.mode == "RGB"
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        return np.asarray(image)


def is_drawn(png: bytes) -> bool:
    """White paper, and something on it."""
    image = pixels(png)
    return bool((image[0, 0] == 255).all() and image.std() > 5)


def test_curves() -> None:
    rows = metric_rows()
    for png in (
        curves.loss_curve(rows, "training loss"),
        curves.accuracy_curve(rows),
        curves.learning_rate_curve(rows),
    ):
        assert is_drawn(png)
        assert pixels(png).shape == (560, 800, 3)


def test_a_loss_in_other_units_gets_axes_of_its_own() -> None:
    apart = pixels(curves.loss_curve(metric_rows(), "sigmoid loss", shared=False))
    assert apart.shape == (920, 800, 3)


@pytest.mark.parametrize(
    "rows",
    [
        metric_rows(steps=1, end=False),  # no validation yet
        metric_rows(steps=10, end=False),  # one validation: a single point
        metric_rows(steps=2000),  # long: smoothed, without dots
        [{"step": 1, "epoch": 0.1, "split": "train", "loss": 0.0, "learning_rate": 0.0}],
        [{"step": 9, "epoch": 1.0, "split": "test", "top1": 0.5}],
    ],
)
def test_curves_of_short_and_odd_runs(rows: list[dict[str, Any]]) -> None:
    for png in (
        curves.loss_curve(rows, "training loss"),
        curves.loss_curve(rows, "training loss", shared=False),
        curves.accuracy_curve(rows),
        curves.learning_rate_curve(rows),
    ):
        assert is_drawn(png)


def test_moving_mean_keeps_lines_and_length() -> None:
    line = np.arange(400.0)
    smooth = curves.moving_mean(line)
    np.testing.assert_allclose(smooth[10:-10], line[10:-10])
    assert np.array_equal(curves.moving_mean(line[:20]), line[:20])  # short curves as they are
    noise = np.random.default_rng(0).normal(size=4000)
    assert curves.moving_mean(noise).std() < 0.2 * noise.std()


@pytest.mark.parametrize("classes", [2, 10, 102, 160])
def test_classes(classes: int) -> None:
    names = [f"$class_{i} of many" for i in range(classes)]
    names[1] = "犬 <b>"  # a script that the font may lack
    content = evaluation(names)
    matrix = figures.confusion_matrix(content["confusion"], names)
    bars = figures.class_recall(content["per_class"], content["figures"]["top1"])
    assert is_drawn(matrix)
    assert is_drawn(bars)
    assert max(*pixels(matrix).shape, *pixels(bars).shape) <= 2200


def test_confusion_matrix_shows_where_images_went() -> None:
    """True 0 predicted as 1, 1 as 2, 2 as 0: rows are true classes, from the top."""
    confusion = [[0, 50, 0], [0, 0, 50], [50, 0, 0]]
    image = pixels(figures.confusion_matrix(confusion, list("abc"))).astype(int)
    full = (np.abs(image - [0x12, 0x30, 0x5F]) < 4).all(axis=2)  # the colour of 100 %
    full[:, full.sum(axis=0) < 100] = False  # not the top of the colour bar
    rows, columns = np.nonzero(full)
    third_down = 3 * (rows - rows.min()) // (np.ptp(rows) + 1)
    third_across = 3 * (columns - columns.min()) // (np.ptp(columns) + 1)
    assert [np.unique(third_across[third_down == row]).tolist() for row in range(3)] == [
        [1],
        [2],
        [0],
    ]


def test_classes_without_images_are_left_out() -> None:
    rows = [
        {"name": "seen", "samples": 4, "recall": 0.5, "precision": None},
        {"name": "unseen", "samples": 0, "recall": None, "precision": None},
    ]
    assert is_drawn(figures.class_recall(rows, 0.5))
    assert is_drawn(figures.class_recall(rows[1:], 0.0))


@pytest.mark.parametrize("count", [1, 5, 24])
def test_mistakes(count: int) -> None:
    colour = io.BytesIO()
    Image.fromarray(np.full((40, 30, 3), 120, np.uint8)).save(colour, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(colour.getvalue()).decode()
    one = {"index": 0, "true": "coat", "predicted": "x" * 80, "probability": 0.75, "image": uri}
    assert is_drawn(figures.mistakes_sheet([one, *[one | {"image": grey_uri()}] * (count - 1)]))


def test_images_come_back_as_stored() -> None:
    assert np.array_equal(figures.decode_image(grey_uri(7)), np.full((28, 28), 7, np.uint8))
    with pytest.raises(UserError, match="data:image/png"):
        figures.decode_image("https://example.org/a.png")


def test_the_same_figure_is_the_same_bytes() -> None:
    assert curves.accuracy_curve(metric_rows()) == curves.accuracy_curve(metric_rows())


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"-m pip install matplotlib$"):
        curves.accuracy_curve(metric_rows())


def test_words() -> None:
    assert percent(0.91534) == "91.5\N{NO-BREAK SPACE}%"
    assert short("a\n b", 10) == "a b"
    assert short("abcdef", 4) == "abc…"
