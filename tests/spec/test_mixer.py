"""Model configurations: labels, sizes, and what is refused."""

import dataclasses

import pytest

from mixerkit.errors import UserError
from mixerkit.spec.mixer import VARIANTS, MixerConfig, is_variant, variant, variant_of


@pytest.mark.parametrize("label", VARIANTS)
def test_every_label_builds_and_is_recognised(label):
    assert is_variant(label)
    assert variant_of(variant(label)) == label
    assert variant_of(variant(label, num_classes=7, in_channels=4, gelu="erf")) == label
    assert variant_of(variant(label, width=24)) == "custom"


def test_labels_may_be_lower_case_and_have_any_patch():
    assert variant("b/16") == variant("B/16")
    assert variant("S/28").grid == (8, 8)


@pytest.mark.parametrize("label", ["B", "B/", "B/0", "B16", "B/16/2", "X/16", "", "B/16 ", "B/1.5"])
def test_other_labels_are_refused_alike_by_both_questions(label):
    assert not is_variant(label)
    with pytest.raises(UserError, match=r"Unknown model variant .* Known: S/32"):
        variant(label)


def test_a_misspelt_setting_gets_a_suggestion():
    with pytest.raises(UserError, match=r"'num_class'\. Did you mean 'num_classes'"):
        variant("B/16", num_class=10)


@pytest.mark.parametrize("size, pair", [(28, (28, 28)), ((28, 56), (28, 56)), ([56, 28], (56, 28))])
def test_sizes_are_one_side_or_height_and_width(size, pair):
    config = MixerConfig(image_size=size, patch_size=14)
    assert config.image_hw == pair
    assert config.grid == (pair[0] // 14, pair[1] // 14)
    assert MixerConfig(image_size=(28, 28), patch_size=14).image_size == 28
    hash(config)


def test_padding_adds_the_partial_patch():
    assert MixerConfig(image_size=(27, 33), patch_size=8, pad=True).grid == (4, 5)


WRONG = {
    "smaller than the patch of 16 px": dict(image_size=8),
    "width of 30 px is smaller than the patch of 32 px": dict(image_size=(64, 30), patch_size=32),
    "nearest valid sizes are 224 and 240": dict(image_size=230),
    "image_size must be a positive whole number": dict(image_size=224.0),
    "image_size must be a positive": dict(image_size=(224, 224, 3)),
    "patch_size must be a positive": dict(patch_size=0),
    "image_size must be": dict(image_size=True),
    "depth must be a whole number of at least 1, found 0": dict(depth=0),
    "width must be a whole number": dict(width=64.0),
    "num_classes must be a whole number of at least 0": dict(num_classes=-1),
    "drop_path must be at least 0 and below 1": dict(drop_path=1.0),
    "dropout must be at least 0 and below 1": dict(dropout=float("nan")),
    "norm_eps must be positive": dict(norm_eps=0.0),
    "gelu must be one of tanh, erf": dict(gelu="relu"),
    "token_mixer must be one of .* Did you mean 'linear'": dict(token_mixer="linaer"),
}


@pytest.mark.parametrize("message", WRONG)
def test_impossible_models_are_refused(message):
    with pytest.raises(UserError, match=message):
        MixerConfig(**WRONG[message])


def test_configurations_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MixerConfig().width = 3
