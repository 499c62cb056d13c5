"""`mixer zoo` and `mixer convert` as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.zoo import cached
from mixerkit.cli.main import main
from mixerkit.spec.zoo import PUBLISHED
from tests.checkpoint import published
from tests.checkpoint.published import TINY

PACKAGED = {"fashion-demo", "fashion-best"}


@pytest.fixture
def npz(tmp_path):
    return published.write(tmp_path / "tiny.npz", published.linen(TINY))


def test_the_zoo_is_listed_with_what_each_model_is(capsys):
    assert main(["zoo"]) == 0
    rows, legend = capsys.readouterr().out.split("\n\n")
    lines = rows.splitlines()
    assert len(lines) == 1 + len(PACKAGED) + len(PUBLISHED)
    assert all(f"{column}:" in legend for column in ("ReaL", "here"))
    row = next(line for line in lines if "b16-imagenet1k-google" in line)
    assert "ImageNet-1k from scratch" in row and "76.44" in row and "228.47" in row
    assert main(["zoo", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == PACKAGED | set(PUBLISHED)
    assert rows["fashion-demo"].keys() == rows["b16-imagenet1k-google"].keys()


def test_the_packaged_model_is_listed_shown_and_here(capsys, repository):
    """What the list says of it is what its own files and results/fashion-demo.json say."""
    measured = json.loads((repository / "results" / "fashion-demo.json").read_text())["rows"][0]
    assert main(["zoo", "--json"]) == 0
    row = next(r for r in json.loads(capsys.readouterr().out) if r["name"] == "fashion-demo")
    assert row["cached"] and row["num_classes"] == 10 and row["trained_on"] == "fashion-mnist"
    assert row["top1"] == pytest.approx(100 * measured["test_accuracy"])
    assert main(["zoo", "fetch", "fashion-demo"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert load(folder).config == load("zoo:fashion-demo").config
    assert row["mebibytes"] * 2**20 == sum(path.stat().st_size for path in folder.iterdir())
    assert main(["zoo", "fashion-demo"]) == 0
    text = capsys.readouterr().out
    assert "28 × 28 px" in text and "its own test images" in text and "ImageNet" not in text


def test_here_says_which_files_are_fetched(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cached(PUBLISHED["s32-gsam-google"])
    file.parent.mkdir(parents=True)
    file.touch()
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines if line.endswith(" yes")] == [
        *sorted(PACKAGED), "s32-gsam-google",
    ]  # fmt: skip


def test_one_model_is_shown(capsys):
    assert main(["zoo", "show", "zoo:b16-imagenet1k-google"]) == 0
    text = capsys.readouterr().out
    for part in ("values in [-1, 1]", "goog_in21k_ft_in1k", "ReaL 82.36 %", "mixer_models"):
        assert part in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["zoo", "show", "b16-imagenet1k-googel"], "Did you mean 'b16-imagenet1k-google'"),
        (["zoo", "fetch"], "Which model?"),
        (["zoo", "list", "x"], "takes no name"),
        (["predict", "{npz}", "--model", "zoo:b16"], "No model 'zoo:b16'"),
        (["convert", "B/16", "out"], "a variant without weights"),
        (["convert", "{npz}", "out.pth"], "are not written"),
        (["convert", "zoo:nothing", "out"], "No model 'zoo:nothing'"),
        (["convert", "{npz}", "{npz}"], "already exists"),
        (["convert", "{npz}", "no/such/out"], "The folder no/such"),
        (["convert", "{npz}", "out.npz", "--image-size", "24", "--to", "google"], "enlargement"),
        (["convert", "{npz}", "out", "--image-size", "13"], "nearest valid sizes"),
        (["convert", "{npz}", "out.pth", "--to", "google"], ".npz file"),
        (["convert", "{npz}", "out", "--methd", "area"], "--method"),
    ],
)
def test_bad_input_is_one_message(npz, words, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("{npz}", str(npz)) for word in words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_offline_says_where_a_zoo_file_belongs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["info", "zoo:s32-gsam-google"]) == 0  # needs no file
    assert "trained on ImageNet-1k from scratch with GSAM" in capsys.readouterr().out
    assert main(["zoo", "fetch", "s32-gsam-google"]) == 2
    error = capsys.readouterr().err
    assert "MIXERKIT_OFFLINE" in error and "Mixer-S_32.npz" in error


def test_convert_says_what_it_assumed_and_what_is_lost(npz, tmp_path, capsys):
    assert main(["convert", str(npz), str(tmp_path / "ours")]) == 0
    text = capsys.readouterr().out
    assert "Assumed:" in text and "GELU is tanh" in text and "Lost:" not in text
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "t.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "Assumed:" not in text and "compute the erf GELU" in text
    back = load(tmp_path / "t.safetensors", gelu="tanh")
    first = load(npz)
    assert all(
        torch.equal(a, b) for a, b in zip(back.parameters(), first.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "size", "tiles"),
    [
        (["--image-size", "24"], (24, 24), 2),
        (["--image-size", "24", "--enlargement", "dense"], (24, 24), 1),
        (["--image-size", "16", "20", "--method", "pinv"], (16, 20), 1),
        (["--patch-size", "2", "--in-channels", "1", "--num-classes", "0"], (12, 12), 1),
    ],
)
def test_convert_to_another_resolution(npz, tmp_path, options, size, tiles, capsys):
    assert main(["convert", str(npz), str(tmp_path / "out"), *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    model = load(tmp_path / "out")
    assert model.config.image_hw == size and model.config.tiles == tiles
    assert report["parameters"] == sum(p.numel() for p in model.parameters())
    images = np.zeros((1, model.config.in_channels, *size), np.float32)
    assert model(torch.from_numpy(images)).isfinite().all()


def test_a_file_of_a_thousand_classes_predicts_names(tmp_path, capsys):
    """The authors' 1000 classes: label 281 is a tabby, in the file itself and converted."""
    from dataclasses import replace

    arrays = published.linen(replace(TINY, K=1000))
    arrays["head/bias"][281] = 99
    file = published.write(tmp_path / "tiny.npz", arrays)
    Image.new("RGB", (20, 20), "orange").save(tmp_path / "cat.png")
    assert main(["convert", str(file), str(tmp_path / "ours")]) == 0
    for source in (file, tmp_path / "ours"):
        capsys.readouterr()
        assert main(["predict", str(tmp_path / "cat.png"), "--model", str(source)]) == 0
        assert "tabby" in capsys.readouterr().out


def test_half_as_many_bytes_are_read_as_float32(npz, tmp_path, capsys):
    assert main(["convert", "zoo:fashion-demo", str(tmp_path / "whole")]) == 0
    assert main(["convert", "zoo:fashion-demo", str(tmp_path / "half"), "--half"]) == 0
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.52 * sizes[0]
    whole, half = (load(tmp_path / name).state_dict() for name in ("whole", "half"))
    for name, tensor in whole.items():
        assert half[name].dtype == torch.float32
        assert torch.equal(half[name], tensor.half().float()), name
    whole, half = (load(tmp_path / name).about for name in ("whole", "half"))
    assert whole.keys() - half.keys() == {"validation", "test"}  # measured with other numbers
    assert half["stored"] == "float16"
    assert main(["convert", str(npz), str(tmp_path / "half.npz"), "--half"]) == 2
    assert "--half is for our own folder" in capsys.readouterr().err


def test_weights_too_large_for_half_are_refused(npz, tmp_path, capsys):
    assert main(["convert", str(npz), str(tmp_path / "whole")]) == 0
    model = load(tmp_path / "whole")
    with torch.no_grad():
        model.head.bias[0] = 1e5
    from mixerkit.checkpoint.load import save_model
    from mixerkit.errors import UserError

    with pytest.raises(UserError, match=r"float16, which ends at 65,504, .*head\.bias"):
        save_model(tmp_path / "half", model, model.preprocess, {}, half=True)
    assert not (tmp_path / "half").exists()
