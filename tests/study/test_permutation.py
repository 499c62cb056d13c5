"""The order of patches and pixels: what is permuted where, and what a Mixer makes of it."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mixerkit.checkpoint.rows import read_rows
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.token_mixers import TOKEN_MIXERS
from mixerkit.study.grid import read_study
from mixerkit.study.permutation import (
    ALONG,
    Reordered,
    identity,
    patch_order,
    permuted,
    pixel_order,
)
from mixerkit.training.loop import train
from tests.training.runs import RECIPE

CONFIG = MixerConfig(
    image_size=(12, 8), patch_size=(4, 2), in_channels=2, width=8, depth=2, token_width=6,
    channel_width=16, num_classes=5,
)  # fmt: skip


def model_of(mixer: str) -> MlpMixer:
    groups = {"attention": 2, "grouped": 4}.get(mixer, 1)
    torch.manual_seed(1)
    model = MlpMixer(replace(CONFIG, token_mixer=mixer, token_groups=groups)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def cut(image_HW: np.ndarray) -> list[np.ndarray]:
    """Patches in raster order, by slices."""
    return [image_HW[y : y + 4, x : x + 2] for y in range(0, 12, 4) for x in range(0, 8, 2)]


def test_patches_and_their_pixels_change_places_alike() -> None:
    order = patch_order(CONFIG, 3)
    image_HW = np.arange(96.0).reshape(12, 8)
    moved_HW = image_HW.ravel()[order.of_pixels(CONFIG).numpy()].reshape(12, 8)
    before, after = cut(image_HW), cut(moved_HW)
    for place, patch in enumerate(after):
        source = before[int(order.patches[place])].ravel()
        assert np.array_equal(patch.ravel(), source[order.pixels.numpy()])


@pytest.mark.parametrize("order", ["patches", "pixels"])
def test_every_pixel_has_one_place(order: str) -> None:
    index = pixel_order(CONFIG, order, 5)
    assert torch.equal(index.sort().values, torch.arange(96))
    assert torch.equal(index, pixel_order(CONFIG, order, 5))
    assert not torch.equal(index, pixel_order(CONFIG, order, 6))


@pytest.mark.parametrize("mixer", ALONG)
def test_permuted_weights_undo_permuted_images(mixer: str) -> None:
    model, order = model_of(mixer), patch_order(CONFIG, 2)
    image = torch.randn(3, 2, 12, 8, dtype=torch.float64)
    expected = model(image)
    moved = order.of_pixels(CONFIG)
    found = Reordered(permuted(model, order), moved)(image)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    # and it is not for want of difference
    assert (Reordered(model, moved)(image) - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("mixer", sorted(set(TOKEN_MIXERS) - set(ALONG)))
def test_mixers_that_know_neighbours_refuse(mixer: str) -> None:
    with pytest.raises(UserError, match="can be permuted along"):
        permuted(model_of(mixer), patch_order(CONFIG, 2))


def test_the_identity_holds_for_a_published_shape() -> None:
    found = identity("S/32", images=1)
    assert float(found["difference_float64"]) < 1e-13
    assert float(found["difference_float32"]) < 1e-6
    assert float(found["difference_float64_without"]) > 1e-2


def test_one_order_of_all_pixels_is_not_one_of_patches() -> None:
    """Undone by no permutation of patches: patches lose their pixels."""
    index = pixel_order(CONFIG, "pixels", 0).numpy()
    owner_HW = np.repeat(np.repeat(np.arange(12).reshape(3, 4), 4, axis=0), 2, axis=1)
    assert any(len(np.unique(patch)) > 1 for patch in cut(owner_HW.ravel()[index].reshape(12, 8)))


def test_an_order_does_not_go_with_what_it_would_hide(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    text = "factors: {order: {as it is: {}, moved: {order: patches}}, model.drop_path: [0.1]}"
    file.write_text(text)
    with pytest.raises(UserError, match=r"does not go with model\.drop_path"):
        read_study(file).configurations()


def test_filled_up_patches_stay_where_they_are() -> None:
    with pytest.raises(UserError, match="pad=false"):
        patch_order(replace(CONFIG, image_size=(11, 8), pad=True), 0)


def test_a_permuted_start_learns_permuted_images_with_the_same_losses(tmp_path: Path) -> None:
    """Section 3.4, exactly: the whole run is the same, by any optimiser that knows no order."""
    recipe = replace(
        RECIPE, model=replace(RECIPE.model, dropout=0.0), precision="float64", duration="12 steps"
    )
    torch.manual_seed(4)
    model = MlpMixer(recipe.model)
    order = patch_order(recipe.model, 9)
    moved = Reordered(permuted(model, order), order.of_pixels(recipe.model))
    other = Reordered(copy.deepcopy(model), order.of_pixels(recipe.model))
    plain = Reordered(model, torch.arange(28 * 28))
    losses = []
    for number, each in enumerate((plain, moved, other)):
        train(recipe, tmp_path / str(number), model=each)
        rows = read_rows(tmp_path / str(number) / "metrics.jsonl")
        losses.append([row["loss"] for row in rows if row["split"] == "train"])
    assert len(losses[0]) == 12
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[2] != pytest.approx(losses[0], rel=1e-4)
