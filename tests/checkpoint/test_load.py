"""The source grammar and strict loading: every way in, and every way to be refused."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mixerkit.checkpoint import zoo as zoo_module
from mixerkit.checkpoint.load import load, save_model
from mixerkit.checkpoint.manifest import manifest_text
from mixerkit.checkpoint.tensors import read_tensors, write_tensors
from mixerkit.checkpoint.zoo import packaged
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from tests.checkpoint.conftest import TINY, flip_bit

NO_MANIFEST = "manifest.json"


@pytest.fixture
def folder(tmp_path: Path, model, preprocess) -> Path:
    """A saved tiny model."""
    about = {"recipe": "tiny", "data": {"source": "x"}, "step": 3, "test": {"top1": 0.5}}
    save_model(tmp_path / "saved", model, preprocess, about)
    return tmp_path / "saved"


@pytest.fixture
def zoo(tmp_path: Path, model, preprocess, monkeypatch) -> Path:
    """A package with one model, `zoo:tiny-demo`."""
    monkeypatch.setattr(zoo_module, "PACKAGED", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    save_model(tmp_path / "weights" / "tiny-demo", model, preprocess, {})
    return tmp_path / "weights"


def same(first: nn.Module, second: nn.Module, without: str = "nothing") -> bool:
    """Whether two models hold the same numbers."""
    one, two = (
        {n: t for n, t in m.state_dict().items() if not n.startswith(without)}
        for m in (first, second)
    )
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def edit(folder: Path, **changes) -> None:
    """Change config.json as a person would, who then removes the manifest."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (folder / NO_MANIFEST).unlink(missing_ok=True)


def test_saved_and_loaded_is_the_same_model(folder: Path, model, preprocess):
    for source in (folder, str(folder), folder / "model.safetensors"):
        loaded = load(source)
        assert same(loaded, model) and loaded.config == TINY
        assert loaded.preprocess == preprocess and loaded.source == str(source)
        assert loaded.about["recipe"] == "tiny" and loaded.about["test"] == {"top1": 0.5}
        assert not loaded.training and all(p.requires_grad for p in loaded.parameters())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(images), model.eval()(images))


def test_a_loaded_model_trains(folder: Path):
    model = load(folder).train()
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize("label", ["N/7", "article", "T/8"])
def test_every_kind_of_model_round_trips(tmp_path: Path, label: str, preprocess):
    config = variant(label, num_classes=3)
    model = MlpMixer(config)
    fitting = replace(preprocess, image_size=config.image_size, channels=3)
    save_model(tmp_path / "m", model, fitting, {})
    assert same(load(tmp_path / "m"), model) and load(tmp_path / "m").config == config


def test_a_rectangular_model_without_head_round_trips(tmp_path: Path, preprocess):
    config = replace(TINY, image_size=(8, 12), num_classes=0)
    model = MlpMixer(config)
    save_model(tmp_path / "m", model, replace(preprocess, image_size=(8, 12), class_names=()), {})
    assert same(load(tmp_path / "m"), model)
    assert load(tmp_path / "m", num_classes=4).head.weight.shape == (4, 6)


def test_loading_leaves_the_random_numbers_alone(folder: Path):
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_folder_uses_its_model(run, model, preprocess):
    with pytest.raises(UserError, match=r"not finished.*`mixer train --resume "):
        load(run.path)
    run.save_model(model, preprocess, {})
    assert same(load(run.path), model)


def test_a_variant_gives_fresh_weights():
    model = load("N/7", num_classes=5, image_size=14)
    assert model.config == variant("N/7", num_classes=5, image_size=14)
    assert model.preprocess is None and model.source == "N/7, fresh weights"


def test_packaged_models(zoo: Path, model):
    assert list(packaged()) == ["tiny-demo"]
    assert same(load("zoo:tiny-demo"), model) and load("zoo:tiny-demo").source == "zoo:tiny-demo"
    flip_bit(zoo / "tiny-demo" / "model.safetensors", 4000)
    with pytest.raises(UserError, match=r"model\.safetensors was changed or damaged"):
        load("zoo:tiny-demo")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("tiny-demo", r"Did you mean 'zoo:tiny-demo'\?"),
        ("tiny-dmo", r"Did you mean 'zoo:tiny-demo'\?"),
        ("zoo:tiny-dem", r"Did you mean 'tiny-demo'\?"),
        ("zoo:", "In the zoo: tiny-demo, b16-imagenet1k-google"),
        ("B16", r"Did you mean 'B/16'\?"),
        ("artcle", r"Did you mean 'article'\?"),
        ("hf://google", "Expected hf://ORG/NAME"),
        ("no/such/folder", "Expected an existing path"),
        ("x" * 5000, "Expected an existing path"),
        ("a\0b", "Expected an existing path"),
        ("~nobody-of-this-name/x", "Expected an existing path"),
        ("N/5", "not a multiple of the patch"),
        (Path("N/7"), "No file or folder N/7"),
    ],
)
def test_unknown_sources_get_a_suggestion(zoo: Path, source, says: str):
    with pytest.raises(UserError, match=says):
        load(source)


def test_an_existing_path_comes_before_a_variant(folder: Path, monkeypatch, model):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "N").mkdir()
    folder.rename(folder.parent / "N" / "7")
    assert same(load("N/7"), model)


def test_another_number_of_classes_replaces_the_head_and_nothing_else(folder: Path, model):
    other = load(folder, num_classes=8)
    assert same(other, model, without="head.")
    assert other.head.weight.shape == (8, 6) and not other.head.weight.any()
    assert other.config == replace(TINY, num_classes=8)
    assert other.preprocess and other.preprocess.class_names == ()
    assert other.preprocess.image_size == 8
    assert other.about == {"recipe": "tiny", "data": {"source": "x"}, "step": 3}
    assert load(folder, num_classes=3).preprocess.class_names == ("a", "b", "c")
    features = load(folder, num_classes=0)
    assert features(torch.randn(1, 1, 8, 8)).shape == (1, 6)


def test_another_image_size_changes_the_preprocessing_too(folder: Path, model):
    assert same(load(folder, image_size=8), model)
    assert same(load(folder, image_size=(8, 8)), model)
    larger = load(folder, image_size=16)
    assert larger.config == replace(TINY, image_size=16, tiles=2) and same(larger, model)
    assert larger.preprocess.image_size == 16 and larger.preprocess.class_names == ("a", "b", "c")
    assert larger.about == {"recipe": "tiny", "data": {"source": "x"}, "step": 3}
    dense = load(folder, image_size=(16, 8), enlargement="dense")
    assert dense.config == replace(TINY, image_size=(16, 8), token_width=10)
    other = load(folder, image_size=(12, 8))
    assert other.config == replace(TINY, image_size=(12, 8))
    assert other(torch.randn(1, 1, 12, 8)).shape == (1, 3)


def test_patches_and_channels_change_the_preprocessing_too(folder: Path):
    other = load(folder, patch_size=2, in_channels=3)
    assert other.config == replace(TINY, patch_size=2, in_channels=3)
    assert other.preprocess.channels == 3 and other.preprocess.image_size == 8


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "format 'other'"),
        ({"modle": {}}, "unknown key 'modle'. Did you mean 'model'"),
        ({"model": {"widht": 6}}, "model.widht"),
        ({"model": {"depth": 0}}, "depth must be"),
        ({"model": {"depth": "2"}}, "model.depth must be a whole number"),
        ({"model": None}, "model must be a mapping"),
        ({"preprocess": {"mean": [1, 2]}}, "mean needs"),
        ({"preprocess": None}, "preprocess must be a mapping"),
        ({"about": 3}, "about"),
        ({"preprocess": {"image_size": 9, "channels": 1}}, "image size"),
        ({"preprocess": {"image_size": 8, "channels": 3}}, "number of channels"),
    ],
)
def test_a_config_that_is_not_understood_is_named(folder: Path, changes: dict, says: str):
    edit(folder, **changes)
    with pytest.raises(UserError, match=says) as refused:
        load(folder / "model.safetensors")
    assert "config.json" in str(refused.value)


@pytest.mark.parametrize(
    "changes", [{"depth": 10**9}, {"width": 10**12}, {"width": 10**30}, {"image_size": 4 * 10**9}]
)
def test_sizes_are_checked_before_memory_is_taken(folder: Path, changes: dict):
    config = json.loads((folder / "config.json").read_text())
    size = changes.get("image_size", 8)
    edit(
        folder,
        model=config["model"] | changes,
        preprocess=config["preprocess"] | {"image_size": size},
    )
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_missing_and_damaged_files_are_named(folder: Path, name: str):
    path = folder / name
    for bit in random.sample(range(8 * path.stat().st_size), 40):
        flip_bit(path, bit)
        with pytest.raises(UserError, match=name):
            load(folder)
        with pytest.raises(UserError, match=name):
            load(folder / "model.safetensors")
        flip_bit(path, bit)
    path.unlink()
    with pytest.raises(UserError, match=name):
        load(folder)


@pytest.mark.parametrize("kept", ["model.safetensors", "config.json"])
def test_a_manifest_must_vouch_for_weights_and_config(folder: Path, kept: str):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {name: entry for name, entry in manifest["files"].items() if name == kept}
    (folder / "manifest.json").write_bytes(manifest_text({"kind": "model"}, files))
    for source in (folder, folder / "model.safetensors"):
        with pytest.raises(UserError, match=r"manifest\.json does not list"):
            load(source)
    (folder / "manifest.json").write_bytes(manifest_text({"kind": "run"}, manifest["files"]))
    with pytest.raises(UserError, match="holds a run, not a model"):
        load(folder)


def test_what_is_no_model_is_named(tmp_path: Path, folder: Path):
    with pytest.raises(UserError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(UserError, match="Expected a file of weights"):
        load(folder / "config.json")
    (folder / NO_MANIFEST).unlink()
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(folder / "model.safetensors")


def rewrite(folder: Path, change) -> Path:
    """Store other tensors in the model folder, without a manifest."""
    path = folder / "model.safetensors"
    tensors = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors)
    (folder / NO_MANIFEST).unlink()
    return path


def test_one_error_lists_every_mismatch(folder: Path):
    def change(tensors):
        del tensors["norm.bias"]
        tensors["extra"] = torch.ones(1)
        tensors["head.weight"] = torch.ones(4, 6)
        tensors["norm.weight"] = tensors["norm.weight"].double()

    path = rewrite(folder, change)
    for asked in (None, 4):
        with pytest.raises(UserError) as refused:
            load(path, num_classes=asked)
        for line in (
            "missing: norm.bias",
            "unexpected: extra",
            "head.weight: expected [3, 6], found [4, 6]",
            "norm.weight: expected numbers of F32, F16, BF16, found F64",
        ):
            assert line in str(refused.value)
        assert "=" not in str(refused.value)  # no argument of load() cures this


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_numbers_are_named_by_tensor(folder: Path, value: float):
    def change(tensors):
        tensors["blocks.1.channel_norm.bias"][2] = value

    path = rewrite(folder, change)
    with pytest.raises(UserError, match=r"blocks\.1\.channel_norm\.bias"):
        load(path)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, model, preprocess, folder):
    with pytest.raises(UserError, match="already exists"):
        save_model(folder, model, preprocess, {})
    with pytest.raises(UserError, match="number of classes"):
        save_model(tmp_path / "x", model, replace(preprocess, class_names=("a",)), {})
    with pytest.raises(UserError, match=r"float32, found other numbers in: stem\.weight"):
        save_model(tmp_path / "x", MlpMixer(TINY).double(), preprocess, {})
    with pytest.raises(UserError, match=r"config\.json would take .* leave something out"):
        save_model(tmp_path / "x", model, preprocess, {"notes": "x" * (2 << 20)})
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(UserError, match=r"norm\.weight"):
        save_model(tmp_path / "x", model, preprocess, {})
    assert not (tmp_path / "x").exists()
