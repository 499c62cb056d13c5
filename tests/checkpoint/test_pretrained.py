"""Published folders, ours and timm's, here and on a hub that a loopback server stands for."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint import foreign
from mixerkit.checkpoint.load import load, load_weights, save_model
from mixerkit.checkpoint.pretrained import from_pretrained, save_pretrained
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.zoo import MISLABELLED, PUBLISHED, SAME_AS
from tests import fake_hub


def same(a: MlpMixer, b: MlpMixer) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_folder_with_a_card_needs_no_network(tmp_path, model, preprocess):
    model.preprocess = preprocess
    model.about = {"data": {"source": "clothes"}, "test": {"top1": 0.5}}
    save_pretrained(model, tmp_path / "tiny")
    assert same(from_pretrained(tmp_path / "tiny"), model)
    assert same(from_pretrained(str(tmp_path / "tiny"), image_size=16), model)
    card = (tmp_path / "tiny" / "README.md").read_text()
    for text in (
        "library_name: mixerkit",
        "# tiny",
        "clothes",
        "50.00 %",
        "a, b, c",
        "1 × 8 × 8 px",
    ):
        assert text in card
    with pytest.raises(UserError, match="already exists"):
        save_pretrained(model, tmp_path / "tiny")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Path]:
    """A hub on loopback that serves the files of `tmp_path/hub/ORG/NAME`."""
    library = pytest.importorskip("huggingface_hub")
    with fake_hub.running(tmp_path / "hub") as running:
        original = library.hf_hub_download

        def here(*words, **options):
            return original(
                *words, **options, endpoint=running.address, cache_dir=tmp_path / "cache"
            )

        monkeypatch.setattr(library, "hf_hub_download", here)
        monkeypatch.delenv("MIXERKIT_OFFLINE", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running.root


def test_our_folders_come_from_the_hub_whole_or_not_at_all(hub, model, preprocess):
    (hub / "me").mkdir(parents=True)
    model.preprocess = preprocess
    save_pretrained(model, hub / "me" / "tiny")
    assert same(load("hf://me/tiny"), model)
    assert same(from_pretrained("me/tiny"), model) and same(from_pretrained("hf://me/tiny"), model)
    (hub / "me" / "tiny" / "README.md").write_text("a better card")
    assert same(from_pretrained(hub / "me" / "tiny"), model)
    with pytest.raises(UserError, match="No file or folder"):
        from_pretrained(Path("me/typo"))
    (hub / "me" / "tiny").rename(hub / "me" / "broken")
    weights = hub / "me" / "broken" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="changed or damaged"):
        load("hf://me/broken")
    with pytest.raises(UserError, match=r"hf://me/none: config\.json could not be fetched"):
        load("hf://me/none")


def timm_folder(path: Path, tag: str, model: MlpMixer, **more: object) -> None:
    import json

    from mixerkit.checkpoint.convert import write_layout

    path.mkdir(parents=True)
    write_layout(path / "model.safetensors", model, "timm")
    cfg = {
        "tag": tag,
        "input_size": [1, 8, 8],
        "mean": [0.5],
        "std": [0.5],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
    }
    content = {"architecture": "mixer_b16_224", "num_classes": 3, "pretrained_cfg": cfg} | more
    (path / "config.json").write_text(json.dumps(content))


@pytest.fixture
def as_published(monkeypatch):
    """Let the tiny model pass for one of the published shape and classes."""
    monkeypatch.setattr(foreign, "_is", lambda *_: True)


def test_timms_mislabelled_weights_say_what_they_are(hub, model, as_published):
    timm_folder(hub / "timm" / "mixer_b16_224.goog_in21k_ft_in1k", "goog_in21k_ft_in1k", model)
    with pytest.warns(UserWarning, match="trained on ImageNet-1k from scratch"):
        loaded = load("hf://timm/mixer_b16_224.goog_in21k_ft_in1k")
    assert loaded.config.gelu == "tanh" and loaded.about["zoo"] == "b16-imagenet1k-google"
    assert loaded.preprocess.interpolation == "bilinear"  # the authors', not timm's


@pytest.mark.parametrize(
    ("tag", "gelu", "mean"),
    [("goog_in21k", "tanh", 0.5), ("miil_in21k", "erf", 0.0), ("mine", "erf", 0.5)],
)
def test_timms_other_tags(tmp_path, model, tag, gelu, mean, as_published):
    timm_folder(tmp_path / "x", tag, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(tmp_path / "x")
    assert loaded.config.gelu == gelu and loaded.preprocess.mean == (mean,)


def test_a_tag_is_not_believed_of_weights_with_other_classes(tmp_path, model):
    """timm keeps the tag of what a model was fine-tuned from."""
    timm_folder(tmp_path / "x", "goog_in21k_ft_in1k", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(tmp_path / "x")
    assert loaded.config.gelu == "erf" and "zoo" not in loaded.about
    assert loaded.preprocess.interpolation == "bicubic"


def test_classes_are_called_as_the_folder_says(tmp_path, model):
    timm_folder(tmp_path / "named", "mine", model, label_names=["ant", "bee", "cat"])
    timm_folder(tmp_path / "miscounted", "mine", model, label_names=["ant", "bee"])
    assert load(tmp_path / "named").preprocess.class_names == ("ant", "bee", "cat")
    assert load(tmp_path / "miscounted").preprocess.class_names == ()


def test_a_thousand_classes_are_taken_for_imagenets_and_said_to_be(tmp_path, model):
    from dataclasses import replace

    large = MlpMixer(replace(model.config, num_classes=1000))
    timm_folder(tmp_path / "x", "mine", large)
    loaded = load(tmp_path / "x")
    assert loaded.preprocess.class_names[281] == "tabby"
    assert any("ImageNet-1k's" in note for note in loaded.notes)
    labels = [f"thing {i}" for i in range(1000)]
    timm_folder(tmp_path / "own", "mine", large, label_names=labels)
    loaded = load(tmp_path / "own")
    assert list(loaded.preprocess.class_names) == labels
    assert not any("ImageNet-1k's" in note for note in loaded.notes)


def test_the_zoo_knows_timms_uploads() -> None:
    assert set(SAME_AS.values()) <= set(PUBLISHED) and set(MISLABELLED.values()) <= set(PUBLISHED)
    for tag, name in MISLABELLED.items():
        truth = PUBLISHED[name]
        assert truth.variant[0].lower() == tag[6] and truth.num_classes == 1000
        assert truth.top1 in (76.44, 71.76)  # the paper's from-scratch rows


def test_weights_into_a_model_that_exists(tmp_path, model, preprocess):
    save_model(tmp_path / "tiny", model, preprocess, {})
    twin = MlpMixer(model.config)
    load_weights(twin, tmp_path / "tiny")
    assert same(twin, model)
    from dataclasses import replace

    other = MlpMixer(replace(model.config, num_classes=4, image_size=12))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UserError) as refused:
        load_weights(other, tmp_path / "tiny")
    for line in ("head.weight: expected [4, 6], found [3, 6]", "image_size=12", "num_classes=4"):
        assert line in str(refused.value)
    assert all(torch.equal(before[name], t) for name, t in other.state_dict().items())
    erf = MlpMixer(replace(model.config, gelu="erf"))
    with pytest.raises(UserError, match=r"gelu: the model has erf.*made for tanh"):
        load_weights(erf, tmp_path / "tiny")
    tiled = MlpMixer(replace(model.config, image_size=16, tiles=2))
    load_weights(tiled, tmp_path / "tiny")
    assert same(tiled, model) and tiled.preprocess.image_size == 16
    with pytest.raises(UserError, match="another architecture"):
        load_weights(MlpMixer(replace(model.config, width=8)), tmp_path / "tiny")
    with pytest.raises(UserError, match="no stored weights"):
        load_weights(other, "N/7")
