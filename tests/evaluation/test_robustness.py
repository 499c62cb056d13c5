"""Conditions, the model at other sizes, and rows that are what the parts give."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.pixels import Reading
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import evaluate, probabilities, right
from mixerkit.evaluation.conditions import KINDS, at_size, conditions, sizes
from mixerkit.evaluation.corruption import corrupt
from mixerkit.evaluation.interval import interval_of_share
from mixerkit.evaluation.robustness import Chosen, drawn, measure_under
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess

NAMES = ("a", "b", "c")


def a_config(**changes) -> MixerConfig:
    small = dict(width=16, depth=2, token_width=8, channel_width=16, in_channels=1, num_classes=3)
    return variant("N/4", **(dict(image_size=16) | small | changes))


def a_model(**changes) -> MlpMixer:
    """Random weights, by which every class is as likely."""
    model = MlpMixer(a_config(**changes)).eval()
    channels, size = model.config.in_channels, model.config.image_size
    with torch.no_grad():
        model.head.weight.normal_()
        model.head.bias -= model(torch.rand(100, 1, size, size) * 2 - 1).mean(0)
    model.preprocess = Preprocess(image_size=size, channels=channels, class_names=NAMES)
    return model


@pytest.fixture
def split() -> ImageSplit:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 16, 16, 1), np.uint8)
    return ImageSplit("noise", NAMES, random.integers(0, 3, 40), images)


def chosen_from(split: ImageSplit, model: MlpMixer, count: int = 0, seed: int = 0) -> Chosen:
    reading = Reading(workers=1)
    indices = drawn(len(split), count, seed)
    return Chosen(split, model.preprocess, indices, seed=seed, memory=1.0, reading=reading)


def rows_of(split: ImageSplit, model: MlpMixer, batch_size: int = 16, **options) -> list[dict]:
    asked = conditions(model.config, KINDS)
    return list(
        measure_under(model, chosen_from(split, model, **options), asked, batch_size=batch_size)
    )


def test_clean_is_what_evaluation_gives(split):
    model = a_model()
    loader = EvaluationLoader(split, model.preprocess, batch_size=16)
    row = rows_of(split, model)[0]
    assert (row["kind"], row["top1"]) == ("clean", evaluate(model, loader, NAMES).top1)
    assert row["drop"] == row["drop_half_width"] == 0
    p_NK, labels_N = probabilities(model, loader)
    expected = interval_of_share(right(p_NK, labels_N))
    assert (row["top1_interval"], row["top1_interval_by"]) == expected


def test_a_row_is_what_the_parts_give(split):
    """By hand, image by image."""
    model = a_model()
    for row in rows_of(split, model, count=25, seed=3):
        if row["kind"] in ("clean", "size"):
            continue
        indices = chosen_from(split, model, count=25, seed=3).indices
        right = 0
        for index in indices.tolist():
            pixels = corrupt(
                split.images[index], row["kind"], row["severity"],
                index=index, seed=3, patch_hw=(4, 4),
            )  # fmt: skip
            x = (torch.tensor(pixels[:, :, 0]).float()[None, None] / 255 - 0.5) / 0.5
            right += int(model(x).argmax()) == split.labels[index]
        assert row["top1"] == right / 25


def test_a_drop_is_a_mean_of_differences(split):
    rows = rows_of(split, a_model())
    for row in rows:
        assert row["drop"] == pytest.approx(rows[0]["top1"] - row["top1"])
        assert 0 <= row["drop_half_width"] <= 2 * 2.03 / 39**0.5  # differences are −1, 0 or 1
    assert any(row["drop"] for row in rows)


def test_a_drop_of_no_image_has_an_interval_with_a_width(split):
    """A model that answers the same whatever it sees."""
    model = a_model()
    with torch.no_grad():
        model.head.weight.zero_()
    clean, *others = rows_of(split, model)
    assert clean["drop_half_width"] == 0 and {row["drop"] for row in others} == {0}
    assert all(0.05 < row["drop_half_width"] < 0.1 for row in others)


def test_rows_do_not_depend_on_the_batch_size_or_on_memory(split):
    model = a_model()
    rows = rows_of(split, model, batch_size=16)
    assert rows == rows_of(split, model, batch_size=7) == rows_of(split, model, batch_size=40)


def test_rows_of_files_are_those_of_arrays(split, tmp_path):
    model, paths = a_model(), []
    for i, image_HWI in enumerate(split.images):
        paths.append(tmp_path / f"{i:02}.png")
        Image.fromarray(image_HWI[:, :, 0]).save(paths[-1])
    files = ImageSplit("noise", NAMES, split.labels, None, tuple(paths))
    assert rows_of(files, model) == rows_of(split, model)


def test_a_subset_is_random_fixed_and_of_its_size(split):
    model = a_model()
    one, again, other = (chosen_from(split, model, 10, seed).indices for seed in (0, 0, 1))
    assert len(set(one.tolist())) == 10 and (one == again).all() and (one != other).any()
    assert (one == np.sort(one)).all() and (one != np.arange(10)).any()
    for every in (0, 40, 100):
        assert (chosen_from(split, model, every).indices == np.arange(40)).all()


def test_progress_counts_images_over_all_conditions(split):
    model, told = a_model(), []
    asked = conditions(model.config, ("jpeg",))
    list(measure_under(model, chosen_from(split, model), asked, batch_size=16, watch=told.append))
    assert told[:4] == [16, 32, 40, 56] and told[-1] == 6 * 40 and told == sorted(told)


def test_enlarged_images_are_counted(split):
    rows = {
        (row["image_size"][0], row["enlargement"]): row["enlarged"]
        for row in rows_of(split, a_model())
    }
    assert rows[16, None] == rows[8, "resample"] == rows[12, "resample"] == 0
    assert rows[24, "resample"] == rows[32, "resample"] == rows[32, "shared"] == 1


def test_some_files_are_enlarged(tmp_path):
    paths = tuple(tmp_path / f"{side}.png" for side in (10, 20, 30, 40))
    for path in paths:
        Image.new("L", (int(path.stem), 50)).save(path)
    split = ImageSplit("files", NAMES, np.zeros(4, np.int64), None, paths)
    rows = rows_of(split, a_model())
    assert rows[0]["enlarged"] == 1 / 4
    assert [row["enlarged"] for row in rows if row["kind"] == "size"] == [
        0,
        1 / 4,
        2 / 4,
        3 / 4,
        3 / 4,
    ]


def test_sizes_are_multiples_of_the_patch():
    found = [(one.image_hw, one.enlargement) for one in sizes(variant("B/16"))]
    assert found == [
        ((112, 112), "resample"), ((160, 160), "resample"), ((336, 336), "resample"),
        ((448, 448), "resample"), ((448, 448), "shared"),
    ]  # fmt: skip
    rectangle = sizes(a_config(image_size=(12, 20)))
    assert [one.image_hw for one in rectangle] == [(8, 8), (8, 16), (16, 32), (24, 40), (24, 40)]
    assert sizes(a_config(image_size=4))[0].image_hw == (8, 8)  # nothing smaller than a patch


def test_a_tiled_model_is_the_mean_of_its_tiles(split):
    """Four times the image: what `at_size` gives with shared tiles."""
    model = a_model()
    shared = next(one for one in sizes(model.config) if one.enlargement == "shared")
    larger = at_size(model, shared)
    x = torch.randn(3, 1, 32, 32)
    tiles = [model(x[..., i : i + 16, j : j + 16]) for i in (0, 16) for j in (0, 16)]
    assert torch.allclose(larger(x), torch.stack(tiles).mean(0), atol=1e-5)
    assert larger.preprocess.image_hw == (32, 32) and larger.preprocess.class_names == NAMES
    assert model.preprocess.image_hw == (16, 16)


def test_images_that_needed_no_resizing_are_resized_for_other_sizes(split):
    model = a_model()
    model.preprocess = Preprocess(image_size=16, channels=1, resize="none", class_names=NAMES)
    assert {row["image_size"][0] for row in rows_of(split, model)} == {8, 12, 16, 24, 32}


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("shuffle", dict(pad=True, image_size=18), "filled up"),
        ("shuffle", dict(image_size=4), "single patch"),
        ("jpeg", dict(in_channels=2), "1 or 3 channels, its images 2"),
        ("fog", {}, "'fog'"),
    ],
)
def test_what_a_model_cannot_be_measured_under_is_refused(kind, changes, says):
    with pytest.raises(UserError, match=says):
        conditions(a_config(**changes), (kind,))


def test_a_token_mixer_of_one_size_is_refused_by_name():
    model = a_model(token_mixer="random")
    with pytest.raises(UserError, match="Leave out 'size'"):
        at_size(model, sizes(model.config)[0])
