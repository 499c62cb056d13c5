"""`mixer export`: files, what is printed, and bad input."""

import json
import re
from pathlib import Path

import pytest

from mixerkit.cli.arguments import parse
from mixerkit.cli.export import Export, name_of, settings_of
from mixerkit.cli.main import main
from mixerkit.inference import gate, web_runtime
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


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_page(
    precision: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is printed shows it, whatever the folder is called."""
    contents = dict.fromkeys(web_runtime.TAKEN, b"")
    monkeypatch.setattr(web_runtime, "runtime_files", lambda folder: contents)
    words = ["export", SHIPPED, "--to", "web", "--precision", precision]
    assert main([*words, "--out", "my page"]) == 0
    out = capsys.readouterr().out
    assert "my page, a folder" in out and "100.00 %" in out
    assert "python -m http.server -d 'my page' --bind 127.0.0.1" in out
    about = json.loads(Path("my page/model.json").read_text(encoding="utf-8"))
    assert (about["title"], about["precision"]) == ("fashion-demo", precision)
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "fashion-demo-page/index.html" in report["files"] and report["to"] == "web"
    assert main(words) == 2
    assert "already exists and is never overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("speed_up", [2.0, 1.1])
def test_eight_bits_pass_the_gate_or_not(
    speed_up: float,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
    tmp_path: Path,
) -> None:
    speed = gate.Speed(speed_up, speed_up, speed_up, "onnxruntime")
    monkeypatch.setattr(gate, "speed_up", lambda *given: speed)
    root = str(repository / "tests/samples/fashion-mnist")
    words = ["--precision", "int8", "--images", "fashion-mnist", "--root", root, "--count", "256"]
    code = main(["export", SHIPPED, *words])
    captured = capsys.readouterr()
    assert captured.err.count("signal to noise") == 6
    if speed_up < 1.2:
        assert code == 3 and "1.10 times as fast in onnxruntime" in captured.err
        assert list(tmp_path.iterdir()) == []
        assert main(["export", SHIPPED, *words, "--force", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["judged"]["speed"]["ratio"] == 1.1
        assert open_exported(Path("fashion-demo.onnx")).about["forced"] is True
    else:
        assert code == 0 and "2.00 times float32's, in onnxruntime" in captured.out
        assert "the head alone" in captured.out


@pytest.mark.parametrize(
    ("words", "percentiles", "smooths"),
    [
        ([], {100, 99.99, 99.9}, {0, 0.5}),
        (["--percentile", "99.95"], {99.95}, {0, 0.5}),
        (["--smooth", "0.7"], {100, 99.99, 99.9}, {0.7}),
        (["--smooth", "0"], {100, 99.99, 99.9}, {0}),
        (["--percentile", "100", "--smooth", "0.5"], {100}, {0.5}),
    ],
)
def test_what_is_given_is_tried_with_all_of_the_other(
    words: list[str], percentiles: set[float], smooths: set[float]
) -> None:
    """Each pair once."""
    found = settings_of(parse(Export, ["a", *words], command="export", examples=""))
    assert sorted((one.percentile, one.smooth) for one in found) == sorted(
        (percentile, smooth) for percentile in percentiles for smooth in smooths
    )


def test_eight_bits_from_a_folder_of_images_as_it_is_told(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
    tmp_path: Path,
) -> None:
    """No classes in the folder, the better of two settings, and what each product costs, kept in
    the file."""
    speed = gate.Speed(2.0, 2.0, 2.0, "onnxruntime")
    monkeypatch.setattr(gate, "speed_up", lambda *given: speed)
    folder = flat_folder(repository, tmp_path / "flat", 140)
    words = ["export", SHIPPED, "--precision", "int8", "--images", str(folder)]
    more = ["--percentile", "99.95", "--sensitivity", "--json"]
    assert main([*words, *more]) == 0
    captured = capsys.readouterr()
    assert "ranges from 40 images, judged by 100 others" in captured.err
    found = json.loads(captured.out)["judged"]
    tried = re.findall(r"percentile (.*), smoothing (.*): signal to noise (.*) dB", captured.err)
    assert [one[:2] for one in tried] == [("99.95", "0"), ("99.95", "0.5")]
    best = max(tried, key=lambda one: float(one[2]))
    assert found["setting"] == {"percentile": 99.95, "smooth": float(best[1])}
    about = open_exported(Path("fashion-demo.onnx")).about
    assert set(about["judged"]["costs"]) == set(about["eight_bits"]) | set(found["in_float"])
    next(folder.iterdir()).unlink()
    for _ in range(9):
        next(folder.iterdir()).unlink()
    assert main([*words, "--out", "b.onnx"]) == 2
    assert "found 130 in all: give more with --images" in capsys.readouterr().err


def flat_folder(repository: Path, folder: Path, count: int) -> Path:
    """Images of all classes, in one folder."""
    from PIL import Image

    from mixerkit.data.sources import open_source

    split = open_source("fashion-mnist", str(repository / "tests/samples/fashion-mnist")).test
    assert split is not None and split.images is not None
    folder.mkdir()
    for number in range(count):
        Image.fromarray(split.images[number, ..., 0]).save(folder / f"{number:03}.png")
    return folder


def test_a_bad_setting_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    repository: Path,
    tmp_path: Path,
) -> None:
    """Half of all values are cut off: whatever stays in float does not help, nor does the speed."""
    speed = gate.Speed(2.0, 2.0, 2.0, "onnxruntime")
    monkeypatch.setattr(gate, "speed_up", lambda *given: speed)
    root = str(repository / "tests/samples/fashion-mnist")
    words = ["--precision", "int8", "--images", "fashion-mnist", "--root", root, "--count", "200"]
    assert main(["export", SHIPPED, *words, "--percentile", "50"]) == 3
    err = capsys.readouterr().err
    assert "Not kept in 8 bits" in err and "2.00 times as fast" in err
    agreement = float(err.partition("the same as in float for ")[2].partition("%")[0])
    assert agreement < 99
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_need_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", "N/7", "--precision", "int8"]) == 2
    assert "give --images NAME|FOLDER" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([SHIPPED, "--count", "0"], "--count must be at least 1"),
        ([SHIPPED, "--images", "no-such-set"], "no-such-set"),
        ([SHIPPED, "--out", "a.xml"], r"A model for onnx is a file *.onnx, found a.xml"),
        ([SHIPPED, "--out", "no/a.onnx"], "No folder no"),
        ([SHIPPED, "--to", "onx"], "onx"),
        ([SHIPPED, "--percentile", "99.9"], "--percentile is for --precision int8"),
        ([SHIPPED, "--sensitivity"], "--sensitivity is for --precision int8"),
        ([SHIPPED, "--precision", "int8", "--percentile", "0.99"], "from 50 to 100, found 0.99"),
        ([SHIPPED, "--precision", "int8", "--smooth", "2"], "from 0 to 1, found 2"),
        ([SHIPPED, "--to", "web", "--pixels"], "leave --pixels and --probabilities out"),
        ([SHIPPED, "--to", "web", "--out", "no/page"], "No folder no"),
        ([SHIPPED, "--to", "web", "--runtime-files", "."], "has no ort.wasm.bundle.min.mjs"),
        ([SHIPPED, "--runtime-files", "."], "--runtime-files are for a page"),
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


@pytest.mark.parametrize("form", [[], ["--pixels", "--probabilities"]])
def test_evaluate_measures_what_export_wrote(
    form: list[str], capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    """The same figures as of the model; which images they are is in the file."""
    root = str(repository / "tests/samples/fashion-mnist")
    assert main(["export", SHIPPED, *form]) == 0
    capsys.readouterr()
    found = []
    for model in (SHIPPED, "fashion-demo.onnx"):
        assert main(["evaluate", model, "--data.root", root, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    theirs, ours = found
    assert ours["samples"] == theirs["samples"] == 200
    assert ours["data"] == theirs["data"] == "fashion-mnist test"
    for figure in ("top1", "nll", "ece"):
        assert ours[figure] == pytest.approx(theirs[figure], abs=1e-5)
    assert ours["confusion"] == theirs["confusion"]


@pytest.mark.parametrize("protocol", ["robustness", "fewshot", "avg5"])
def test_protocols_that_look_inside_refuse_an_exported_model(
    protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", SHIPPED]) == 0
    capsys.readouterr()
    assert main(["evaluate", "fashion-demo.onnx", "--protocol", protocol]) == 2
    assert "the model that it was exported from" in capsys.readouterr().err


def test_folders_of_this_machine_are_not_told(tmp_path: Path) -> None:
    from mixerkit.checkpoint.load import load
    from mixerkit.cli.export_images import noise
    from mixerkit.inference.export import export

    model = load(SHIPPED)
    assert dict(model.about)["data"]["source"] == "fashion-mnist"
    for source in ("fashion-mnist", str(tmp_path / "photos")):
        model.about = dict(model.about) | {"data": {"source": source, "root": str(tmp_path)}}
        path = tmp_path / f"{Path(source).name}.onnx"
        export(model, path, noise(model))
        about = open_exported(path).about
        assert about.get("data", {}).get("source") == (None if "/" in source else source)
        assert str(tmp_path).encode() not in path.read_bytes()
