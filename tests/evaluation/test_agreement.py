"""When a published model's figures are judged, and how."""

from pathlib import Path

import numpy as np
import pytest

from mixerkit.data.splits import ImageSplit
from mixerkit.evaluation.agreement import beside_published, why_incomparable
from mixerkit.spec.zoo import PUBLISHED

B16, L16 = PUBLISHED["b16-imagenet1k-google"], PUBLISHED["l16-imagenet1k-google"]


def found(top1: float, real: float | None = None) -> dict:
    """Figures of 25 of 40 images would have such an interval: it must not decide."""
    wide = {"top1_interval": (0.0, 1.0)}
    return {"top1": top1, **wide} | ({} if real is None else {"real": {"top1": real, **wide}})


@pytest.mark.parametrize(
    ("top1", "agrees"),
    [(0.7644, True), (0.7659, True), (0.7629, True), (0.76592, False), (0.7628, False)],
)
def test_figures_agree_within_a_fixed_number_of_points(top1: float, agrees: bool) -> None:
    said = beside_published(B16, found(top1))
    assert said is not None and said["figures"]["top-1"]["agrees"] is agrees


def test_each_figure_is_judged_by_itself_and_all_are_in_per_cent() -> None:
    said = beside_published(B16, found(0.7646, 0.81))
    assert said is not None and said["source"] == "paper, table 3" and said["incomparable"] == ""
    top1, real = said["figures"]["top-1"], said["figures"]["ReaL top-1"]
    assert top1 == {
        "here": pytest.approx(76.46), "interval": [0, 100], "published": 76.44,
        "difference": pytest.approx(0.02), "agrees": True,
    }  # fmt: skip
    assert (real["published"], real["agrees"]) == (82.36, False)
    assert (real["here"], real["difference"]) == (pytest.approx(81.0), pytest.approx(-1.36))


def test_another_interpolation_would_be_noticed() -> None:
    """What timm measured of the same weights, bicubic in place of bilinear."""
    for one, top1, real in ((B16, 0.76616, 0.82012), (L16, 0.72084, 0.77306)):
        said = beside_published(one, found(top1, real))
        assert said is not None
        assert [row["agrees"] for row in said["figures"].values()] == [False, False]


def test_nothing_is_said_where_nothing_was_published() -> None:
    assert beside_published(PUBLISHED["b16-imagenet21k-google"], found(0.5)) is None
    said = beside_published(PUBLISHED["b16-sam-google"], found(0.774, 0.8))
    assert said is not None and list(said["figures"]) == ["top-1"]


def test_without_a_verdict_there_is_the_difference() -> None:
    said = beside_published(B16, found(0.7646), "a reason")
    assert said is not None and said["incomparable"] == "a reason"
    row = said["figures"]["top-1"]
    assert row["agrees"] is None and row["difference"] == pytest.approx(0.02)


def split(count: int, name: str = "imagenet val") -> ImageSplit:
    return ImageSplit(name, ("a", "b"), np.zeros(count, np.int64), None, (Path("x"),) * count)


def test_figures_are_comparable_of_the_whole_validation_images_alone() -> None:
    whole = split(50_000)
    assert why_incomparable(whole, True, 0, True) == why_incomparable(whole, True, 75, True) == ""
    few = why_incomparable(split(40), True, 0, True)
    assert "50,000 validation images" in few and "40 images of imagenet val" in few
    train = why_incomparable(split(50_000, "imagenet train"), False, 0, True)
    assert "these are of 50,000 images of imagenet train" in train
    assert why_incomparable(whole, True, 76, True) == "76 of the images cannot be used"
    assert "prepared in another way" in why_incomparable(whole, True, 0, False)
