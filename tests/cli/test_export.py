"""`mixer export`: files, what is printed, and bad input."""

import json
from pathlib import Path

import pytest

from mixerkit.cli.export import name_of
from mixerkit.cli.main import main
from mixerkit.inference.exported import open_exported

SHIPPED = "zoo:fashion-demo"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_name_is_found_and_both_runtimes_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", SHIPPED]) == 0
    out = capsys.readouterr().out
    assert "fashion-demo.onnx" in out and "normalised images [batch, 1, 28, 28]" in out
    assert out.count("100.00 %") == 2
    assert main(["export", SHIPPED]) == 2
    assert "already exists and is never overwritten" in capsys.readouterr().err


def test_json_for_openvino(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "openvino", "--out", "a.xml", "--precision", "float16", "--pixels", "--json"]
    assert main(["export", SHIPPED, *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["a.bin", "a.xml"] and report["precision"] == "float16"
    (row,) = report["compared"]
    assert row["runtime"] == "openvino" and row["top1_agreement"] == 1 and row["relative"] < 0.02
    about = open_exported(Path("a.xml")).about
    assert (about["input"], about["stored"]) == ("pixels", "float16")


def test_another_image_size() -> None:
    assert main(["export", SHIPPED, "--image-size", "56"]) == 0
    assert open_exported(Path("fashion-demo.onnx")).config.image_hw == (56, 56)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([SHIPPED, "--out", "a.xml"], r"A model for onnx is a file *.onnx, found a.xml"),
        ([SHIPPED, "--out", "no/a.onnx"], "No folder no"),
        ([SHIPPED, "--to", "onx"], "onx"),
        (["N/7"], "the same outputs for all images"),
        (["nothing-here"], "nothing-here"),
        ([], "MODEL"),
    ],
)
def test_bad_input_writes_nothing(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["export", *words]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and not captured.out
    assert list(tmp_path.iterdir()) == []


def test_predict_reads_what_export_wrote(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    image = str(repository / "examples/fashion/ankle-boot.png")
    assert main(["export", SHIPPED]) == 0
    capsys.readouterr()
    found = []
    for model in (SHIPPED, "fashion-demo.onnx"):
        assert main(["predict", image, "--model", model, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)[0]["classes"])
    for ours, theirs in zip(*found, strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
    assert main(["predict", image, "--model", "fashion-demo.onnx", "--image-size", "56"]) == 2
    assert "exported for one image size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("zoo:b16-imagenet1k-google", "b16-imagenet1k-google"),
        ("runs/photos@best", "photos-best"),
        ("folder/Mixer-B_16.npz", "Mixer-B_16"),
        ("hf://timm/mixer_b16_224.goog_in21k", "mixer_b16_224.goog_in21k"),
        ("B/16", "16"),
    ],
)
def test_names_of_files(source: str, name: str) -> None:
    assert name_of(source) == name
