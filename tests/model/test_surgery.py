"""Surgery against its own mathematics: tiles, block-diagonal matrices, resizing, channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixerkit.errors import UserError
from mixerkit.model import surgery
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from tests import oracle
from tests.model.random_weights import SMALL, random_images, random_mixer

SHAPES = {
    "S/32": variant("S/32", depth=3, num_classes=9),
    "B/16": variant("B/16", depth=2, num_classes=9),
    "H/14": variant("H/14", depth=1, num_classes=9),
}


def assembled(config: MixerConfig, tensors: surgery.Tensors) -> MlpMixer:
    model = MlpMixer(config).to(next(iter(tensors.values())).dtype)
    model.load_state_dict(tensors)
    return model.eval()


def tiles_of(images: torch.Tensor, config: MixerConfig) -> torch.Tensor:
    """[B·K², I, h, w]: cut by slicing, row by row."""
    height, width = config.image_hw
    rows = range(0, images.shape[2], height)
    columns = range(0, images.shape[3], width)
    cut = [images[:, :, r : r + height, c : c + width] for r in rows for c in columns]
    return torch.stack(cut, 1).flatten(0, 1)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", ["S/32", pytest.param("B/16", marks=pytest.mark.slow),
                                  pytest.param("H/14", marks=pytest.mark.slow)])  # fmt: skip
def test_an_enlarged_models_logits_are_the_mean_of_its_tiles(name, factor):
    config = SHAPES[name]
    model = random_mixer(config)  # float64
    larger, shared = surgery.enlarge(config, model.state_dict(), factor)
    images = random_images(larger, 1)
    with torch.inference_mode():
        wanted = model(tiles_of(images, config)).reshape(1, factor**2, -1).mean(1)
        for settings, tensors in ((larger, shared), surgery.separate(larger, shared)):
            assert oracle.difference(assembled(settings, tensors)(images), wanted) < 1e-10
            single = assembled(settings, {k: v.float() for k, v in tensors.items()})
            assert oracle.difference(single(images.float()), wanted) < 1e-5


def test_unequal_tiles_and_tokens_in_raster_order():
    model = random_mixer(SMALL)
    larger, shared = surgery.enlarge(SMALL, model.state_dict(), (3, 2))
    dense, separated = surgery.separate(larger, shared)
    images = random_images(larger, 2)
    with torch.inference_mode():
        tokens = assembled(larger, shared).tokens(images)
        assert oracle.difference(assembled(dense, separated).tokens(images), tokens) < 1e-12
        tile = model.tokens(images[:, :, 8:16, 12:24])  # second row of tiles, second column
        rows, columns = larger.grid
        found = tokens.reshape(2, rows, columns, -1)[:, 2:4, 3:6].reshape(2, 6, -1)
        assert oracle.difference(found, tile) < 1e-12
        stages = assembled(larger, shared).intermediates(images)
        others = assembled(dense, separated).intermediates(images)
        for name, stage in stages.items():
            assert oracle.difference(stage, others[name]) < 1e-12, name


def test_a_dense_enlarged_model_is_the_oracles_mixer():
    model = random_mixer(SMALL)
    dense, tensors = surgery.separate(*surgery.enlarge(SMALL, model.state_dict(), 2))
    images = random_images(dense, 2)
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    wanted = oracle.mixer(images.numpy(), weights, patch=(4, 4), depth=2, gelu=SMALL.gelu)
    with torch.inference_mode():
        assert oracle.difference(assembled(dense, tensors)(images), wanted) < 1e-10


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [("L/16", 280_500_584, 237.4), ("B/16", 86_996_392, 67.05), ("H/14", 589_723_368, 645.0)],
)
def test_costs_at_448_px_as_published(name, parameters, gmacs):
    config = variant(name)
    shared = replace(config, image_size=448, tiles=2)
    dense = replace(config, image_size=448, token_width=4 * config.token_width)
    assert cost(dense).parameters == parameters
    assert cost(dense).macs / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert cost(shared).parameters == cost(config).parameters
    head = config.width * config.num_classes
    assert cost(shared).macs - head == 4 * (cost(config).macs - head)


def test_closed_form_costs_of_tiles_are_the_models():
    larger = replace(SMALL, image_size=(16, 36), tiles=(2, 3))
    model = MlpMixer(larger)
    assert cost(larger).parameters == sum(p.numel() for p in model.parameters())
    assert cost(larger).parameters == cost(SMALL).parameters


def test_gradients_do_not_cross_tiles():
    larger = replace(SMALL, image_size=(8, 24), tiles=(1, 2))
    model = random_mixer(larger)
    images = random_images(larger, 1).requires_grad_()
    tokens = model.tokens(images).reshape(1, *larger.grid, -1)
    tokens[:, :, :3].sum().backward()
    assert images.grad[..., :12].abs().max() > 0
    assert images.grad[..., 12:].abs().max() == 0


# -- resampling -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", surgery.METHODS)
@pytest.mark.parametrize("size", [(8, 12), (16, 12), (20, 28), (4, 8), 12])
def test_resampled_weights_have_the_shapes_of_the_new_size(method, size):
    config, tensors = surgery.resample(SMALL, random_mixer(SMALL).state_dict(), size, method)
    assert config.image_hw == ((size, size) if isinstance(size, int) else size)
    model = assembled(config, tensors)
    with torch.inference_mode():
        assert model(random_images(config, 2)).isfinite().all()


@pytest.mark.parametrize("method", surgery.METHODS)
def test_the_same_size_changes_no_bit(method):
    tensors = random_mixer(SMALL).state_dict()
    _, same = surgery.resample(SMALL, tensors, SMALL.image_size, method)
    assert all(same[name] is tensors[name] for name in tensors)


@pytest.mark.parametrize("method", surgery.METHODS)
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (2, 2), (9, 3)])
def test_a_constant_field_is_read_and_written_as_before(method, grid):
    """Reading sums to the same, and writing a constant gives that constant, at every size."""
    reading = torch.randn(5, 6, dtype=torch.float64)
    tensors = {
        "blocks.0.token_mixing.fc1.weight": reading,
        "blocks.0.token_mixing.fc2.weight": torch.ones(6, 5, dtype=torch.float64),
        "blocks.0.token_mixing.fc2.bias": torch.full((6,), 2.0, dtype=torch.float64),
    }
    size = (4 * grid[0], 4 * grid[1])
    _, new = surgery.resample(SMALL, tensors, size, method)
    ones = torch.ones(grid[0] * grid[1], dtype=torch.float64)
    read = new["blocks.0.token_mixing.fc1.weight"] @ ones
    torch.testing.assert_close(read, reading.sum(1))
    written = new["blocks.0.token_mixing.fc2.weight"]
    torch.testing.assert_close(written, torch.ones_like(written))
    torch.testing.assert_close(new["blocks.0.token_mixing.fc2.bias"], 2 * ones)


def test_pinv_reads_an_enlarged_field_exactly():
    tensors = random_mixer(SMALL).state_dict()
    config, new = surgery.resample(SMALL, tensors, (20, 32), "pinv")
    field = torch.randn(6, 3, dtype=torch.float64)
    U = surgery.resize_matrix(SMALL.grid, config.grid, "bilinear")
    name = "blocks.1.token_mixing.fc1.weight"
    torch.testing.assert_close(new[name] @ (U @ field), tensors[name] @ field)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resize_matrices_are_pytorchs_image_resizing(method):
    field = torch.randn(1, 1, 5, 7, dtype=torch.float64)
    U = surgery.resize_matrix((5, 7), (9, 4), method)
    wanted = torch.nn.functional.interpolate(field, (9, 4), mode=method, antialias=True)
    torch.testing.assert_close(U @ field.flatten(), wanted.flatten())


@pytest.mark.parametrize("new", [(2, 2), (3, 5), (7, 3), (4, 6), (8, 12)])
def test_averaging_is_exact_integration(new):
    """Against a brute-force average over a fine grid that both grids divide."""
    old, fine = (4, 6), (4 * 3 * 5 * 7 * 2, 6 * 5 * 7 * 2)
    field = np.random.default_rng(0).normal(size=old)
    pixels = np.kron(field, np.ones((fine[0] // old[0], fine[1] // old[1])))
    boxes = pixels.reshape(new[0], fine[0] // new[0], new[1], fine[1] // new[1])
    found = surgery.averaging_matrix(old, new).numpy() @ field.flatten()
    np.testing.assert_allclose(found, boxes.mean((1, 3)).flatten(), atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (16, 12), (24, 36), 20, (4, 8)])
def test_an_enlarged_model_goes_anywhere_that_its_native_model_goes(size):
    tensors = random_mixer(SMALL).state_dict()
    larger, shared = surgery.enlarge(SMALL, tensors, 2)
    direct, wanted = surgery.adapt(SMALL, tensors, image_size=size)
    found, through = surgery.adapt(larger, shared, image_size=size)
    assert found == direct
    assert all(torch.equal(wanted[name], through[name]) for name in wanted)


def test_shared_tiles_become_dense_at_the_same_size():
    larger, shared = surgery.enlarge(SMALL, random_mixer(SMALL).state_dict(), 2)
    config, tensors = surgery.adapt(larger, shared, enlargement="dense")
    wanted, expected = surgery.separate(larger, shared)
    assert config == wanted and all(torch.equal(tensors[n], expected[n]) for n in expected)


def test_variance_of_the_activations_is_kept_for_smooth_fields():
    """Token mixing of a smooth random field gives hidden units of the native size's variance."""
    config = variant("B/16", depth=1, width=64, token_width=128)
    tensors = random_mixer(config).state_dict()
    name = "blocks.0.token_mixing.fc1.weight"
    noise = torch.randn(200, 1, 4, 4, dtype=torch.float64)
    for size in (160, 320, (192, 288)):
        other, new = surgery.resample(config, tensors, size)
        fields = [
            torch.nn.functional.interpolate(noise, grid, mode="bicubic").flatten(1)
            for grid in (config.grid, other.grid)
        ]
        before, after = ((w @ x.T).var() for w, x in zip((tensors[name], new[name]), fields,
                                                          strict=True))  # fmt: skip
        assert after / before == pytest.approx(1, abs=0.15), size


def test_shared_tiles_are_resampled_tile_by_tile():
    tensors = random_mixer(SMALL).state_dict()
    larger, shared = surgery.enlarge(SMALL, tensors, 2)
    once, direct = surgery.resample(SMALL, tensors, (12, 16))
    twice, tiled = surgery.resample(larger, shared, (24, 32))
    assert twice.tiles == 2 and twice.tile_grid == once.grid
    assert all(torch.equal(direct[name], tiled[name]) for name in direct)


# -- patches, channels, classes ---------------------------------------------------------------


@pytest.mark.parametrize("patch", [8, 5, (6, 4)])
def test_an_enlarged_patch_gives_what_the_patch_gave(patch):
    """FlexiViT's property: an image enlarged patch by patch has the same tokens."""
    model = random_mixer(SMALL)
    config, tensors = surgery.resize_patches(SMALL, model.state_dict(), patch, keep="grid")
    assert config.grid == SMALL.grid
    images = random_images(SMALL, 2)
    B = surgery.resize_matrix(SMALL.patch_hw, config.patch_hw, "bilinear")
    patches = images.reshape(2, 2, 2, 4, 3, 4).permute(0, 1, 2, 4, 3, 5).flatten(4)
    resized = (patches @ B.T).unflatten(-1, config.patch_hw).permute(0, 1, 2, 4, 3, 5)
    larger = resized.reshape(2, 2, *config.image_hw)
    with torch.inference_mode():
        found = assembled(config, tensors)(larger)
        assert oracle.difference(found, model(images)) < 1e-10


def test_a_patch_size_alone_keeps_the_image_size():
    tensors = random_mixer(SMALL).state_dict()
    config, new = surgery.adapt(SMALL, tensors, patch_size=2)
    assert config.image_hw == (8, 12) and config.grid == (4, 6) and config.tiles == 1
    assembled(config, new)
    config, _ = surgery.adapt(SMALL, tensors, patch_size=8, image_size=(16, 24))
    assert config.grid == SMALL.grid


def test_grey_images_give_what_they_gave_as_equal_channels():
    model = random_mixer(SMALL)
    grey = random_images(SMALL, 2)[:, :1]
    config, tensors = surgery.change_channels(SMALL, model.state_dict(), 1)
    with torch.inference_mode():
        same = model(grey.expand(-1, 2, -1, -1))
        assert oracle.difference(assembled(config, tensors)(grey), same) < 1e-12
        more, tensors = surgery.change_channels(config, tensors, 4)
        again = assembled(more, tensors)(grey.expand(-1, 4, -1, -1))
        assert oracle.difference(again, same) < 1e-12


def test_other_classes_get_a_head_of_zeros_and_none_gives_features():
    model = random_mixer(SMALL)
    config, tensors = surgery.change_classes(SMALL, model.state_dict(), 7)
    images = random_images(SMALL, 2)
    with torch.inference_mode():
        assert not assembled(config, tensors)(images).any()
        config, tensors = surgery.change_classes(SMALL, model.state_dict(), 0)
        assert torch.equal(assembled(config, tensors)(images), model.features(images))


def test_nothing_is_changed_in_place():
    tensors = random_mixer(SMALL).state_dict()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    surgery.adapt(SMALL, tensors, image_size=(16, 24), enlargement="dense")
    surgery.adapt(SMALL, tensors, image_size=20, in_channels=1, num_classes=2)
    surgery.adapt(SMALL, tensors, patch_size=2)
    assert all(torch.equal(before[name], tensors[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": 10}, "not a multiple of the patch"),
        ({"image_size": (8, 0)}, "positive whole"),
        ({"patch_size": 5}, "not a multiple of the patch"),
        ({"num_classes": -1}, "num_classes"),
        ({"in_channels": 0}, "in_channels"),
        ({"image_size": 20, "method": "cubic"}, "bicubic"),
        ({"method": "cubic"}, "bicubic"),
        ({"enlargement": "Dense"}, "enlargement must be one of"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        surgery.adapt(SMALL, random_mixer(SMALL).state_dict(), **changes)
