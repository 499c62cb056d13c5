"""`mixer visualize`: pictures that are whole files, and numbers that are the model's."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixerkit.checkpoint.load import load, save_model
from mixerkit.cli.main import main
from mixerkit.insight.units import structure
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess

BOOT = Path(__file__).parents[2] / "examples" / "fashion" / "ankle-boot.png"


def test_the_packaged_model_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    words = ["visualize", "zoo:fashion-demo", "--out", str(out), "--image", str(BOOT)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Ankle boot" in printed and "with an opposite" in printed
    names = {path.name for path in out.iterdir()}
    drawn = {f"{what}-{block}.png" for what in ("units", "mixing") for block in (1, 2, 3)}
    assert names == drawn | {"filters.png", "structure.png", "influence.png", "numbers.json"}
    for name in names - {"numbers.json"}:
        picture = np.asarray(Image.open(io.BytesIO((out / name).read_bytes())).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, name
    numbers = json.loads((out / "numbers.json").read_text())
    model = load("zoo:fashion-demo")
    assert [row["block"] for row in numbers["blocks"]] == list(range(model.config.depth))
    assert numbers["blocks"][1]["partners"] == structure(model, 1).partners
    assert np.array(numbers["influence"]).shape == model.config.grid


def test_charts_also_as_svg_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        words = ["visualize", "zoo:fashion-demo", "--blocks", "2", "--svg", "--json"]
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        assert len(json.loads(capsys.readouterr().out)["blocks"]) == 4
    one, two = (tmp_path / name / "structure.svg" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert b"Smoothness" in one.read_bytes() and not (tmp_path / "one" / "units-1.png").exists()


def test_of_other_mixers_the_filters_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MlpMixer(variant("N/7", in_channels=1, token_mixer="pool"))
    save_model(tmp_path / "model", model, Preprocess(image_size=28, channels=1), {})
    assert main(["visualize", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert "the units of pool cannot be drawn" in capsys.readouterr().err
    assert (tmp_path / "out" / "filters.png").exists()


@pytest.mark.parametrize("block", ["0", "5"])
def test_a_block_that_is_not_there_is_named(
    block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["visualize", "zoo:fashion-demo", "--blocks", block, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"has blocks 1 to 4, found {block}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
