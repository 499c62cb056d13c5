"""`mixer export`: files, what is printed, and bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixerkit.checkpoint import load as loading
from mixerkit.cli.export import name_of
from mixerkit.cli.main import main
from mixerkit.inference import web_runtime
from mixerkit.inference.exported import open_exported

SHIPPED = "zoo:fashion-demo"


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from mixerkit.cli.main import main; main(['export', '--help']); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--percentile FLOAT" in done.stdout
    assert "None" not in done.stdout


def test_a_name_is_found_and_all_that_run_it_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", SHIPPED]) == 0
    out = capsys.readouterr().out
    assert "fashion-demo.onnx" in out and "normalised images [batch, 1, 28, 28]" in out
    assert out.count("100.00 %") == 3 and "64 images of noise" in out
    assert main(["export", SHIPPED]) == 2
    assert "already exists and is never overwritten" in capsys.readouterr().err


def test_what_was_forced_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Fresh weights give the same of all images, so that nothing was compared."""
    assert main(["export", "N/7", "--force"]) == 0
    assert "forced       without --force it is refused" in capsys.readouterr().out
    assert main(["export", SHIPPED, "--force"]) == 0
    assert "forced" not in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("missing", "words", "needs", "install"),
    [
        (["onnx"], [], "onnx", "onnx"),
        (["onnxruntime", "openvino"], [], "onnxruntime or openvino", "onnxruntime"),
        (["onnx", "openvino"], ["--to", "openvino"], "onnx and openvino", "onnx openvino"),
        (["openvino"], ["--to", "openvino", "--precision", "int8"], "openvino", "openvino"),
        (["onnxruntime"], ["--to", "web", "--precision", "int8"], "onnxruntime", "onnxruntime"),
    ],
)
def test_packages_that_are_missing_are_said_first(
    missing: list[str],
    words: list[str],
    needs: str,
    install: str,
    without: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """All of them, with the command that installs them, before a model is loaded."""
    monkeypatch.setattr(loading, "load", lambda *given, **options: pytest.fail("time is spent"))
    without(*missing)
    assert main(["export", SHIPPED, *words]) == 2
    err = capsys.readouterr().err
    assert f" needs {needs}: " in err and err.rstrip().endswith(f"-m pip install {install}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([SHIPPED, "--count", "1"], "--count must be at least 2"),
        ([SHIPPED, "--count", "9"], "--count is about images"),
        ([SHIPPED, "--precision", "float16", "--root", "."], "--root is about images"),
        ([SHIPPED, "--images", "fashion-mnist", "--root", "no"], "--root must be a folder"),
        ([SHIPPED, "--percentile", "abc"], "--percentile takes a number"),
        ([SHIPPED, "--images", "no-such-set"], "no-such-set"),
        ([SHIPPED, "--out", "a.xml"], r"A model for onnx is a file *.onnx, found a.xml"),
        ([SHIPPED, "--out", "no/a.onnx"], "The folder no to write"),
        ([SHIPPED, "--to", "onx"], "onx"),
        ([SHIPPED, "--percentile", "99.9"], "--percentile is for --precision int8"),
        ([SHIPPED, "--sensitivity"], "--sensitivity is for --precision int8"),
        ([SHIPPED, "--precision", "int8", "--percentile", "0.99"], "from 50 to 100, found 0.99"),
        ([SHIPPED, "--precision", "int8", "--smooth", "2"], "from 0 to 1, found 2"),
        ([SHIPPED, "--to", "web", "--pixels"], "leave --pixels and --probabilities out"),
        ([SHIPPED, "--to", "web", "--out", "no/page"], "The folder no to write"),
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
        ("B/16", "B-16"),
        ("article", "article"),
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
