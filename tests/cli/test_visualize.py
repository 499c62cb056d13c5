"""`mixer visualize`: pictures that are whole files, and numbers that are the model's."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mixerkit.checkpoint.load import load, save_model
from mixerkit.cli.main import main
from mixerkit.insight.units import structure
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import read_results
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess

BOOT = Path(__file__).parents[2] / "examples" / "fashion" / "ankle-boot.png"


def test_the_packaged_model_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    words = ["visualize", "zoo:fashion-demo", "--out", str(out), "--image", str(BOOT)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Ankle boot" in printed and "opposite" in printed
    assert max(map(len, printed.splitlines()[:7])) <= 80
    names = {path.name for path in out.iterdir()}
    drawn = {f"figure-{number}.png" for number in (5, 6, 7)} | {
        f"mixing-{block}.png" for block in (1, 2, 3)
    }
    assert names == drawn | {"structure.png", "influence.png", "numbers.json"}
    for name in names - {"numbers.json"}:
        picture = np.asarray(Image.open(io.BytesIO((out / name).read_bytes())).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, name
        assert (picture[:, 0] == 255).all(), name
    numbers = json.loads((out / "numbers.json").read_text())
    model = load("zoo:fashion-demo")
    parts = [f"block {number}" for number in range(1, 5)]
    assert [row["part"] for row in numbers["rows"]] == ["filters", *parts]
    assert numbers["rows"][2]["partners"] == structure(model, 1).partners
    filters = numbers["rows"][0]
    assert (filters["count"], filters["height"], filters["width"]) == (64, 7, 7)
    assert filters["frequency"] < filters["frequency_of_noise"]
    assert np.array(numbers["influence"]).shape == model.config.grid


def test_charts_also_as_svg_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        words = ["visualize", "zoo:fashion-demo", "--blocks", "2", "--svg", "--json"]
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        assert len(json.loads(capsys.readouterr().out)["rows"]) == 5
    one, two = (tmp_path / name / "structure.svg" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert b"Smoothness" in one.read_bytes() and not (tmp_path / "one" / "mixing-1.png").exists()


def planted_models(folder: Path) -> tuple[Path, Path]:
    """A Mixer whose filters and units are waves and their negatives, and a CNN of slower waves."""
    config = MixerConfig(
        image_size=56, patch_size=14, in_channels=1, width=12, depth=2, token_width=6,
        channel_width=5, num_classes=3,
    )  # fmt: skip
    model = MlpMixer(config)
    across = np.arange(14) / 14
    rows = np.arange(4)[:, None] / 4
    with torch.no_grad():
        for i in range(12):
            field = (-1) ** i * np.cos(2 * np.pi * (5 - i // 2) * across + 0.3)
            model.stem.weight[i, 0] = torch.from_numpy(np.tile(field, (14, 1)))
        for i in range(6):
            field = (-1) ** i * np.cos(2 * np.pi * (2 - i // 2) * rows) * np.ones(4)
            for block in model.blocks:
                block.token_mixing.fc1.weight[i] = torch.from_numpy(field.ravel())
    save_model(folder / "model", model, Preprocess(image_size=56, channels=1), {})
    slow = np.stack([np.tile(np.cos(np.pi * k * np.arange(7) / 7), (7, 1)) for k in (1, 0.5, 0)])
    weight = torch.from_numpy(np.concatenate([slow, -slow])[:, None]).float()
    save_file({"layer1.0.conv2.weight": torch.ones(9, 6, 3, 3), "conv1.weight": weight},
              folder / "cnn.safetensors")  # fmt: skip
    return folder / "model", folder / "cnn.safetensors"


def test_a_planted_model_beside_a_planted_cnn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is what was planted, in numbers.json and in the results file."""
    monkeypatch.chdir(tmp_path)
    planted_models(tmp_path)
    words = ["visualize", "model", "--beside", "cnn.safetensors", "--results", "deep/found.json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "written: deep/found.json" in said.out
    assert "beside: conv1.weight of cnn.safetensors." in said.err
    assert (tmp_path / "pictures" / "filters-beside.png").stat().st_size > 5_000
    rows = read_results("deep/found.json")["rows"]
    assert rows == json.loads(Path("pictures/numbers.json").read_text())["rows"]
    known = {row["part"]: row for row in rows}
    assert list(known) == ["filters", "beside", "block 1", "block 2"]
    assert [row["source"] for row in rows] == ["model", "cnn.safetensors", "model", "model"]
    for part, frequency in (("filters", 2.5 / 14), ("block 1", 0.25), ("block 2", 0.25)):
        assert known[part]["partners"] == 1 and known[part]["local"] == 0
        assert known[part]["frequency"] == pytest.approx(frequency, abs=0.02), part
    assert known["beside"]["partners"] == 1 and known["beside"]["smoothness"] > 0.9
    assert known["beside"]["frequency"] < known["filters"]["frequency"]
    settings = read_results("deep/found.json")["settings"]
    assert (settings["source"], settings["beside"]) == ("model", "cnn.safetensors")
    assert read_results("deep/found.json")["command"] == "mixer " + " ".join(words)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [({"fc.weight": (10, 64)}, "has no convolution that could see an image"),
     ({"a.weight": (8, 3, 3, 3), "b.weight": (8, 3, 5, 5)}, "their names do not say which does")],
)  # fmt: skip
def test_a_cnn_without_a_first_layer_is_one_message_and_nothing_is_written(
    tensors: dict[str, tuple[int, ...]], says: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, out = tmp_path / "cnn.safetensors", tmp_path / "out"
    save_file({name: torch.ones(size) for name, size in tensors.items()}, file)
    words = ["visualize", "zoo:fashion-demo", "--beside", str(file), "--out", str(out)]
    assert main(words) == 2
    assert says in capsys.readouterr().err and not out.exists()


def test_of_other_mixers_the_filters_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MlpMixer(variant("N/7", in_channels=1, token_mixer="pool"))
    save_model(tmp_path / "model", model, Preprocess(image_size=28, channels=1), {})
    assert main(["visualize", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert "the units of pool cannot be drawn" in capsys.readouterr().err
    assert (tmp_path / "out" / "figure-7.png").exists()


@pytest.mark.parametrize("block", ["0", "5"])
def test_a_block_that_is_not_there_is_named(
    block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["visualize", "zoo:fashion-demo", "--blocks", block, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"has blocks 1 to 4, found {block}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
