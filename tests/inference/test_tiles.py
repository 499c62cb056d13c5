"""Tiled inference: exact where it must be, and covering every pixel."""

from itertools import pairwise

import pytest
import torch
from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.errors import UserError
from mixerkit.inference.predictor import predict_files
from mixerkit.inference.tiles import starts, tiled_logits
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import enlarge
from mixerkit.spec.mixer import variant
from tests.model.random_weights import random_images, random_mixer

CONFIG = variant("N/7", image_size=14, num_classes=4, depth=2)


def test_without_overlap_a_whole_multiple_is_the_shared_enlargement():
    model = random_mixer(CONFIG)
    larger, tensors = enlarge(CONFIG, model.state_dict(), (2, 3))
    shared = MlpMixer(larger).double().eval()
    shared.load_state_dict(tensors)
    images = random_images(larger, 2)
    with torch.inference_mode():
        found = tiled_logits(model, images, overlap=0, batch_size=5)
        torch.testing.assert_close(found, shared(images))
        native = random_images(CONFIG, 3)
        torch.testing.assert_close(tiled_logits(model, native), model(native))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("length", [14, 15, 20, 28, 29, 100])
def test_tiles_reach_both_ends_and_overlap_as_asked(length, overlap):
    found = starts(length, 14, overlap)
    assert found[0] == 0 and found[-1] == length - 14 and found == sorted(set(found))
    steps = [b - a for a, b in pairwise(found)]
    assert all(step <= 14 * (1 - overlap) + 1 for step in steps)
    assert all(step <= 14 for step in steps)


def test_every_pixel_counts():
    model = random_mixer(CONFIG)
    images = random_images(CONFIG, 1).repeat(1, 1, 2, 2)[:, :, :25, :19].requires_grad_()
    images.retain_grad()
    tiled_logits(model, images).sum().backward()
    assert (images.grad != 0).all()


def test_too_small_images_and_impossible_overlaps_are_refused():
    model = random_mixer(CONFIG)
    with pytest.raises(UserError, match="at least 14"):
        tiled_logits(model, torch.zeros(1, 3, 13, 20).double())
    with pytest.raises(UserError, match="overlap"):
        tiled_logits(model, random_images(CONFIG, 1), overlap=1.0)


def test_a_panorama_is_looked_at_as_a_whole(tmp_path, repository):
    """The same boot three times in a row; one tile is exactly the usual prediction."""
    left = Image.open(repository / "examples/fashion/ankle-boot.png").convert("L")
    wide = Image.new("L", (left.width * 3, left.height))
    for i in range(3):
        wide.paste(left, (i * left.width, 0))
    wide.save(tmp_path / "wide.png")
    model = load("zoo:fashion-demo")
    (found,) = predict_files(model, [tmp_path / "wide.png"], tiles=1)
    assert found.classes[0][0] == "Ankle boot"
    (single,) = predict_files(model, [repository / "examples/fashion/ankle-boot.png"])
    (tiled,) = predict_files(model, [repository / "examples/fashion/ankle-boot.png"], tiles=1)
    assert tiled.classes[0][1] == pytest.approx(single.classes[0][1], abs=1e-5)
    with pytest.raises(UserError, match="tiles must be"):
        predict_files(model, [tmp_path / "wide.png"], tiles=-1)
