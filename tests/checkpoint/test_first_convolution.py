"""The first convolution of a CNN: found by names and shapes, in any file, folder or run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixerkit.checkpoint import first_convolution as module
from mixerkit.checkpoint.first_convolution import first_convolution, first_name
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from tests.checkpoint.conftest import row_of

NETWORKS = {
    "resnet18": "conv1.weight",
    "resnet18d": "conv1.0.weight",
    "resnetv2_50": "stem.conv.weight",
    "convnext_atto": "stem.0.weight",
    "efficientnet_b0": "conv_stem.weight",
    "mobilenetv3_small_100": "conv_stem.weight",
    "vgg11": "features.0.weight",
    "densenet121": "features.conv0.weight",
    "regnetx_002": "stem.conv.weight",
    "inception_v3": "Conv2d_1a_3x3.conv.weight",
    "darknet17": "stem.conv1.conv.weight",
    "repvgg_a0": "stem.conv_kxk.conv.weight",
    "convmixer_768_32": "stem.0.weight",
    "xception41": "stem.0.conv.weight",
    "mixer_s32_224": "stem.proj.weight",
    "vit_tiny_patch16_224": "patch_embed.proj.weight",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_layer_of_timms_networks_is_found(name: str, channels: int) -> None:
    """Whatever order the tensors are in, for images in colour and in grey."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, in_chans=channels)
    sizes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert first_name(dict(sorted(sizes.items(), reverse=True)), name) == NETWORKS[name]


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3)},
         "features.0.0.weight"),  # torchvision's MobileNet
        ({"resnet.embedder.embedder.convolution.weight": (64, 3, 7, 7)},
         "resnet.embedder.embedder.convolution.weight"),  # Hugging Face's ResNet
        ({"2.weight": (16, 8, 3, 3), "0.weight": (8, 1, 5, 5)}, "0.weight"),
        ({"net.conv2.weight": (16, 6, 5, 5), "net.conv1.weight": (6, 1, 5, 5)}, "net.conv1.weight"),
        ({"fine.conv1.weight": (9, 3, 7, 7), "deep.er.conv1.weight": (9, 3, 7, 7)},
         "fine.conv1.weight"),
        ({"a.0.weight": (64, 1, 3, 3), "b.dwconv.weight": (64, 1, 7, 7)}, "a.0.weight"),
    ],
)  # fmt: skip
def test_other_names(sizes: dict[str, tuple[int, ...]], found: str) -> None:
    assert first_name(sizes, "net.pth") == found


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"fc.weight": (10, 3), "conv1.weight": (64, 3, 1, 1)}, "no convolution that could see"),
        ({"conv1.weight": (64, 16, 3, 3), "gate.weight": (1, 3, 7, 7)}, "none among 2 tensors"),
        ({"left.0.weight": (8, 3, 3, 3), "right.0.weight": (8, 3, 5, 5)},
         r"2 convolutions .* \(left.0.weight, right.0.weight\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_said(sizes: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(UserError, match=rf"net\.pth has {says}" if "2 conv" in says else says):
        first_name(sizes, "net.pth")


def cnn() -> nn.Module:
    """A small CNN with known filters."""
    model = nn.Sequential(nn.Conv2d(1, 4, 7), nn.ReLU(), nn.Conv2d(4, 5, 3))
    torch.manual_seed(7)
    nn.init.normal_(model[0].weight)
    return model


def is_of(model: nn.Module, source: str) -> bool:
    found = first_convolution(source)
    assert found.weight.dtype == np.float32
    return np.array_equal(found.weight, model[0].weight.detach().numpy())


@pytest.mark.parametrize("name", ["cnn.safetensors", "cnn.pth", "folder/model.safetensors"])
def test_a_file_or_a_folder_of_weights(name: str, tmp_path: Path) -> None:
    model, path = cnn(), tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".pth"):
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    assert is_of(model, str(path))
    assert is_of(model, str(path.parent)) if path.parent != tmp_path else True


def test_flax_has_its_axes_in_another_order(tmp_path: Path) -> None:
    """The authors' own files, such as of B/32 to be drawn beside B/16: the paper's figure 7."""
    draw = np.random.default_rng(0)
    stem = draw.normal(size=(4, 5, 3, 6)).astype(np.float32)
    np.savez(
        tmp_path / "mixer.npz",
        **{"stem/kernel": stem, "MixerBlock_0/token_mixing/Dense_0/kernel": stem[0, 0]},
    )
    found = first_convolution(str(tmp_path / "mixer.npz"))
    assert (found.name, found.weight.shape) == ("stem/kernel", (6, 3, 4, 5))
    assert found.weight[2, 1, 3, 4] == stem[3, 4, 1, 2]


def test_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(module, "fetch_from_hub", {"hf://timm/cnn": tmp_path}.__getitem__)
    assert is_of(model, "hf://timm/cnn")


@pytest.mark.parametrize("averaged", [False, True])
def test_a_run_of_ours_that_trains_a_peer(averaged: bool, run_path: Path, recipe: Recipe) -> None:
    """The newest checkpoint, its average where the recipe has one; other tensors of the state do
    not disturb."""
    model = cnn()
    part = "ema." if averaged else "model."
    recipe = replace(recipe, ema=0.9 if averaged else 0.0)
    with RunFolder.create(run_path, recipe) as run:
        for step, factor in ((1, 5.0), (2, 1.0)):
            weights = {name: factor * value for name, value in model.state_dict().items()}
            tensors = {f"{part}{name}": value for name, value in weights.items()}
            tensors["optimizer.0.momentum"] = torch.ones(4, 1, 7, 7)
            if averaged:
                tensors["model.0.weight"] = torch.ones(4, 1, 7, 7)
            run.log(row_of(step))
            run.save_checkpoint(step, tensors, {"validation": 1 / step}, keep=2)
    folder = run_path / "checkpoints" / "step-00000002"
    for source in (run_path, f"{run_path}@2", folder, folder / "tensors.safetensors"):
        assert is_of(model, str(source))
    assert not is_of(model, f"{run_path}@best")


def test_of_a_mixer_it_is_the_patch_embedding() -> None:
    found = first_convolution("zoo:fashion-demo")
    assert (found.name, found.weight.shape) == ("stem.weight", (64, 1, 7, 7))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("B/16", r"B/16 does not exist\. Expected a file of weights \(\.safetensors"),
        ("nowhere.pth", r"nowhere\.pth does not exist"),
        (".", "holds no weights that are known"),
        ("notes.txt", r"Expected a file of weights .* found notes\.txt"),
        ("study", "study is a study: give one of its runs, such as study/runs/a=1"),
        ("zoo:nothing", "No model 'zoo:nothing'"),
    ],
)
def test_a_source_without_weights_is_refused(
    source: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    for name in ("recipe.yaml", "manifest.json"):
        Path("study/runs/a=1").mkdir(parents=True, exist_ok=True)
        Path("study/runs/a=1", name).touch()
    with pytest.raises(UserError, match=says):
        first_convolution(source)


def test_weights_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    weight = torch.full((4, 1, 3, 3), torch.nan)
    save_file({"conv1.weight": weight}, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"conv1\.weight holds NaN"):
        first_convolution(str(tmp_path / "nan.safetensors"))
