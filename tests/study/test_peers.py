"""Peers of timm: what a stem sees of a small image."""

from pathlib import Path

import pytest
import torch

from mixerkit.spec.mixer import variant
from mixerkit.study.grid import read_study
from mixerkit.study.peers import peer_of

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "stem", "stride"),
    [("resnet", "conv1.0", (1, 1)), ("resnet-7x7", "conv1", (2, 2))],
)
def test_stems_of_the_resnets_for_small_images(
    name: str, stem: str, stride: tuple[int, int]
) -> None:
    """Nothing is pooled behind the stem: the last of four stages still sees a grid."""
    pytest.importorskip("timm")
    model = peer_of(name, variant("N/4", in_channels=1, num_classes=10, width=8, depth=1)).eval()
    assert model.get_submodule(stem).stride == stride
    grid = 28 // stride[0]
    with torch.inference_mode():
        features = model.forward_features(torch.zeros(2, 1, 28, 28))
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert features.shape == (2, 64, -(-grid // 8), -(-grid // 8))


def test_the_wide_stem_has_filters_to_look_at() -> None:
    pytest.importorskip("timm")
    model = peer_of("resnet-7x7", variant("N/4", in_channels=1, num_classes=10, depth=1))
    assert model.get_parameter("conv1.weight").shape == (64, 1, 7, 7)


def test_the_example_trains_it_where_the_page_says() -> None:
    text = (EXAMPLES / "first-filters.yaml").read_text(encoding="utf-8")
    (one,) = read_study(EXAMPLES / "first-filters.yaml").configurations()
    model = one.recipe.model
    assert (one.peer, model.width, model.depth) == ("resnet-7x7", 16, 1)
    assert (one.recipe.duration, one.recipe.optimizer.lr) == ("4 epochs", 0.003)
    assert f"--beside runs/studies/first-filters/runs/{one.name}" in text
