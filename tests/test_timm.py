"""Our Mixers inside timm: its registry, its model interface, its feature extraction."""

import numpy as np
import pytest
import torch

timm = pytest.importorskip("timm")

from mixerkit import timm as ours  # noqa: E402
from mixerkit.checkpoint.load import load  # noqa: E402
from mixerkit.checkpoint.zoo import cached  # noqa: E402
from mixerkit.errors import UserError  # noqa: E402
from mixerkit.results import read_results  # noqa: E402
from mixerkit.spec.zoo import PUBLISHED as ZOO  # noqa: E402
from tests import oracle  # noqa: E402
from tests.checkpoint import published  # noqa: E402
from tests.model.random_weights import randomise  # noqa: E402
from tests.timm_suite import table  # noqa: E402

SMALL = dict(img_size=64, patch_size=16, depth=3, token_width=5, width=24, channel_width=32)


def small(**changes):
    torch.manual_seed(0)
    settings = SMALL | {"num_classes": 7} | changes
    return randomise(timm.create_model("mixerkit_s16_224", **settings)).eval()


def test_every_variant_is_registered_with_its_weights():
    names = timm.list_models("mixerkit_*")
    assert set(names) == set(ours.NAMES) and len(names) == 8
    tags = timm.list_models("mixerkit_b16*", pretrained=True)
    assert "mixerkit_b16_224.google_imagenet21k" in tags and len(tags) == 4
    cfg = timm.create_model("mixerkit_s32_224", depth=1).pretrained_cfg
    assert cfg["url"].endswith("gsam/Mixer-S_32.npz") and cfg["mean"] == (0.5,) * 3


def test_the_forward_pass_is_the_pieces_and_our_models():
    model, images = small(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = model.forward_features(images)
        assert tokens.shape == (2, 16, 24)
        assert torch.equal(model.forward_head(tokens), model(images))
        pooled = model.forward_head(tokens, pre_logits=True)
        assert torch.equal(pooled, tokens.mean(1)) and model.num_features == 24
        torch.testing.assert_close(model.head(model.features(images)), model(images))


def test_classifiers_and_pooling_are_changed():
    model, images = small(), torch.randn(2, 3, 64, 64)
    assert model.get_classifier() is model.head
    model.reset_classifier(3)
    assert model(images).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0, "")
    assert model(images).shape == (2, 16, 24)
    with pytest.raises(UserError, match="global_pool"):
        model.reset_classifier(3, "max")
    assert small(global_pool="", num_classes=0)(images).shape == (2, 16, 24)


@pytest.mark.parametrize("fmt", ["NCHW", "NLC"])
def test_intermediates_are_the_stages_of_the_model(fmt):
    model, images = small(img_size=(32, 64)), torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        final, kept = model.forward_intermediates(images, indices=[0, 2], output_fmt=fmt)
        stages = model.intermediates(images)
        assert torch.equal(final, stages["norm"])
        for block, found in zip((0, 2), kept, strict=True):
            if fmt == "NCHW":
                assert found.shape == (2, 24, 2, 4)
                found = found.flatten(2).transpose(1, 2)
            torch.testing.assert_close(found, stages[f"blocks.{block}.channel_mixing"])
        early = model.forward_intermediates(images, 1, intermediates_only=True, stop_early=True)
        assert len(early) == 1
    assert model.prune_intermediate_layers([0, 1]) == [0, 1] and len(model.blocks) == 2
    assert model(images).shape == (2, 8, 24)  # no head and no pooling, as timm's own


def test_intermediates_of_larger_images_are_in_raster_order():
    dynamic, images = small(dynamic_img_size=True), torch.randn(2, 3, 64, 128)
    fixed = small(img_size=(64, 128), tiles=(1, 2))
    with torch.inference_mode():
        final, kept = dynamic.forward_intermediates(images)
        wanted, stages = fixed.forward_intermediates(images)
        torch.testing.assert_close(final, wanted)
        torch.testing.assert_close(dynamic.forward_features(images), wanted)
        assert [k.shape for k in kept] == [(2, 24, 4, 8)] * 3
        for found, stage in zip(kept, stages, strict=True):
            torch.testing.assert_close(found, stage)


def test_features_only():
    model = timm.create_model("mixerkit_s16_224", features_only=True, out_indices=(0, 2), **SMALL)
    found = model(torch.randn(1, 3, 64, 64))
    assert [f.shape for f in found] == [(1, 24, 4, 4)] * 2
    assert model.feature_info.channels() == [24, 24]


def test_parameter_groups_by_depth_cover_every_parameter():
    from timm.models import group_parameters

    model = small()
    groups = group_parameters(model, model.group_matcher())
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert len(groups) == 1 + 3 + 1  # stem, blocks (the last norm with the last), head


def test_gradients_are_those_without_checkpointing():
    model, images = small().train(), torch.randn(2, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_another_input_size_is_what_load_makes_of_it():
    model, images = small(), torch.randn(2, 3, 128, 128)
    dynamic = small(dynamic_img_size=True)
    with torch.inference_mode():
        wanted = torch.stack([dynamic(images[:, :, r : r + 64, c : c + 64])
                              for r in (0, 64) for c in (0, 64)]).mean(0)  # fmt: skip
        torch.testing.assert_close(dynamic(images), wanted)
        model.set_input_size(128)
        torch.testing.assert_close(model(images), wanted)
        model.set_input_size((96, 160))
        assert model(torch.randn(1, 3, 96, 160)).shape == (1, 7)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "changes", [{}, {"num_classes": 5}, {"in_chans": 1}, {"img_size": 320}, {"img_size": (64, 128)}]
)
def test_pretrained_weights_for_any_size_classes_and_channels(tmp_path, changes):
    shape = published.Shape(P=16, C=24, L=2, T=5, D=32, S=196)
    file = published.write(tmp_path / "Mixer-S_16.npz", published.linen(shape))
    model = timm.create_model(
        "mixerkit_s16_224",
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(file), custom_load=True),
        **dict(depth=2, token_width=5, width=24, channel_width=32) | changes,
    ).eval()
    size = model.config.image_hw
    wanted = load(
        file,
        image_size=size,
        in_channels=changes.get("in_chans"),
        enlargement="resample",
    )
    images = torch.randn(1, model.in_chans, *size)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(images), wanted.features(images))
        if changes == {}:
            weights = published.oracle_weights(published.linen(shape))
            exact = oracle.mixer(images.numpy(), weights, patch=(16, 16), depth=2, gelu="tanh")
            assert oracle.difference(np.asarray(model(images)), exact) < 2e-5


def test_files_of_the_same_name_are_not_taken_for_each_other(tmp_path, monkeypatch):
    """timm's cache goes by the last part of an address, which four tags of B/16 share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    shape = published.Shape(P=16, C=24, L=2, T=5, D=32, S=196)
    sizes = dict(depth=2, token_width=5, width=24, channel_width=32)
    for seed, tag in enumerate(("sam", "gsam")):
        file = cached(ZOO[f"b16-{tag}-google"])
        file.parent.mkdir(parents=True)
        published.write(file, published.linen(shape, seed))
        model = timm.create_model(f"mixerkit_b16_224.google_{tag}", pretrained=True, **sizes)
        wanted = load(file).state_dict()
        assert all(torch.equal(t, wanted[name]) for name, t in model.state_dict().items())
    with pytest.raises(UserError, match="MIXERKIT_OFFLINE forbids"):
        timm.create_model("mixerkit_b16_224.google_imagenet1k", pretrained=True, **sizes)
    with pytest.raises(UserError, match="cache_dir"):
        timm.create_model("mixerkit_b16_224.google_sam", pretrained=True, cache_dir=tmp_path)


def test_a_resized_model_is_built_again_from_what_timm_remembers():
    from timm.models import get_model_args, get_model_input_config

    model = small()
    model.set_input_size(128)
    model.reset_classifier(4)
    assert get_model_input_config(model)["input_size"] == (3, 128, 128)
    again = timm.create_model("mixerkit_s16_224", **get_model_args(model)).eval()
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 128, 128)
    assert torch.equal(again(images), model(images))
    model.set_input_size((96, 160), patch_size=8)
    again = timm.create_model("mixerkit_s16_224", **get_model_args(model))
    assert again.config == model.config


def test_torch_compile_sees_one_graph():
    model, images = small(), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize("changes", [{}, {"drop_path_rate": 0.5, "drop_rate": 0.5}])
def test_torch_fx_traces_what_the_model_computes(changes):
    from timm.models import create_feature_extractor

    model, images = small(**changes), torch.randn(2, 3, 64, 64)
    traced = create_feature_extractor(model, {"blocks.1": "stage", "head": "logits"})
    for train in (False, True):
        for one in (model, traced):
            one.train(train)
        torch.manual_seed(0)
        wanted = model(images)
        torch.manual_seed(0)
        assert torch.equal(traced(images)["logits"], wanted)
    gradients = []
    for one in (model, traced):
        torch.manual_seed(0)
        out = one(images)
        one.zero_grad()
        (out if one is model else out["logits"]).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in one.named_parameters()})
    theirs = gradients[1]
    assert all(torch.equal(theirs[name], gradient) for name, gradient in gradients[0].items())


def test_the_page_shows_how_timms_own_tests_ended(repository):
    rows = read_results(repository / "results" / "timm-tests.json")["rows"]
    assert table(rows) in (repository / "docs" / "timm.md").read_text(encoding="utf-8")
    assert {row["variant"] for row in rows} == set(ours.NAMES.values())
