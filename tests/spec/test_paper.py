"""The published tables agree with our variants and with the figures quoted from them."""

import pytest

from mixerkit.spec.mixer import PUBLISHED, variant
from mixerkit.spec.paper import (
    CLAIMS,
    FINE_TUNING,
    LARGEST,
    PRETRAINING,
    RESULTS,
    VARIANTS,
    published as row_of,
)


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.label)
def test_table_1_is_what_the_labels_build(row):
    config = variant(row.label)
    assert config.patch_hw == (row.patch, row.patch)
    assert (config.width, config.depth) == (row.width, row.depth)
    assert (config.token_width, config.channel_width) == (row.token_width, row.channel_width)
    assert (config.num_patches, config.image_hw) == (row.patches, (224, 224))
    assert (row.token_width, row.channel_width) == (row.width // 2, row.width * 4)


def test_every_published_label_has_its_row():
    assert tuple(row.label for row in VARIANTS) == PUBLISHED


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.label)
def test_heads_account_for_the_differences(row):
    assert row.parameters - row.parameters_without_head == (row.width + 1) * 1000
    if row.parameters_21843_classes:
        head = row.parameters_21843_classes - row.parameters_without_head
        assert head == (row.width + 1) * 21843


def test_ratios_quoted_from_table_2_follow_from_it():
    ours = row_of(LARGEST, "Mixer-H/14", "JFT")
    vit, bit = row_of(LARGEST, "ViT-H/14", "JFT"), row_of(LARGEST, "BiT-R152x4", "JFT")
    expected = {
        "speed-vit": (ours.images_per_second / vit.images_per_second, 2.67),
        "speed-bit": (ours.images_per_second / bit.images_per_second, 1.54),
        "over-bit": (ours.imagenet - bit.imagenet, 0.40),
        "under-vit": (vit.imagenet - ours.imagenet, 0.61),
    }
    stated = {claim.name: claim.in_tables for claim in CLAIMS if claim.in_tables is not None}
    assert stated.keys() == expected.keys()
    for name, (value, quoted) in expected.items():
        assert value == pytest.approx(quoted, abs=0.005)
        assert stated[name] == pytest.approx(value)


def test_claims_about_single_rows_quote_the_tables():
    values = {claim.name: claim.value for claim in CLAIMS}
    assert values["large-i21k"] == row_of(LARGEST, "Mixer-L/16", "i21k").imagenet
    assert values["from-scratch"] == row_of(RESULTS, "Mixer-B/16", "i1k").imagenet
    assert values["huge-jft"] == row_of(LARGEST, "Mixer-H/14", "JFT").imagenet
    assert len(values) == len(CLAIMS)


def test_more_data_helps_mixer_more_than_vit():
    """The gain from ImageNet to ImageNet-21k at B/16: 4.20 points against 4.92 and so on."""

    def gain(model):
        return row_of(RESULTS, model, "i21k").imagenet - row_of(RESULTS, model, "i1k").imagenet

    assert gain("Mixer-L/16") == pytest.approx(11.13)
    assert gain("Mixer-L/16") > gain("ViT-L/16")


def test_throughput_depends_on_model_and_size_alone():
    rows = {}
    for row in RESULTS:
        speeds = rows.setdefault((row.model, row.image_size), set())
        speeds.add(row.images_per_second)
    assert all(len(speeds) == 1 for speeds in rows.values())


def test_mixer_is_faster_than_vit_of_the_same_label_everywhere():
    speed = {(r.model, r.image_size): r.images_per_second for r in RESULTS}
    for label in ("B/16", "L/16", "H/14"):
        assert speed[f"Mixer-{label}", 224] > speed[f"ViT-{label}", 224]
    assert speed["Mixer-B/16", 224] / speed["ViT-B/16", 224] == pytest.approx(1.6, abs=0.05)


def test_figures_are_percentages_and_real_labels_are_kinder():
    for row in (*LARGEST, *RESULTS):
        assert 60 < row.imagenet < 100
        if row.real is not None:
            assert row.imagenet < row.real < 100


def test_recipes_name_known_families_and_tasks():
    assert {row.family for row in PRETRAINING} <= {label[0] for label in PUBLISHED}
    assert all(row.drop_path == (0.0 if row.data == "JFT" else 0.1) for row in PRETRAINING)
    assert [row.steps for row in FINE_TUNING] == [20_000, 10_000, 10_000, 500, 500, 2_500]
