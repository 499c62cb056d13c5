"""`mixer export` on real images: what it is compared on, and 8 bits."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixerkit.checkpoint import load as loading
from mixerkit.cli.arguments import parse
from mixerkit.cli.export import Export
from mixerkit.cli.export_images import settings_of
from mixerkit.cli.main import main
from mixerkit.inference import gate
from mixerkit.inference.exported import open_exported
from mixerkit.model.mixer import MlpMixer

SHIPPED = "zoo:fashion-demo"


@pytest.fixture
def root(repository: Path) -> str:
    """Where 600 training images are, and no validation images."""
    return str(repository / "tests/samples/fashion-mnist")


def measured(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """8 bits are so many times as fast, whatever this machine has to do."""
    speed = gate.Speed(ratio, ratio, ratio, "onnxruntime")
    monkeypatch.setattr(gate, "speed_up", lambda *given: speed)


@pytest.mark.parametrize("speed_up", [2.0, 1.1])
def test_eight_bits_pass_the_gate_or_not(
    speed_up: float,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    root: str,
    tmp_path: Path,
) -> None:
    measured(monkeypatch, speed_up)
    words = ["--precision", "int8", "--images", "fashion-mnist", "--root", root, "--count", "256"]
    code = main(["export", SHIPPED, *words])
    captured = capsys.readouterr()
    assert (
        captured.err.count("signal to noise") == 6
        and f"images: fashion-mnist: {root}" in captured.err
    )
    if speed_up < 1.2:
        assert code == 3 and "1.10 times as fast in onnxruntime" in captured.err
        assert list(tmp_path.iterdir()) == []
        assert main(["export", SHIPPED, *words, "--force"]) == 0
        assert "without --force it is refused; the file says so" in capsys.readouterr().out
        about = open_exported(Path("fashion-demo.onnx")).about
        assert about["forced"] is True and about["judged"]["speed"]["ratio"] == 1.1
    else:
        assert code == 0 and "2.00 times float32's, in onnxruntime" in captured.out
        assert "the head alone" in captured.out and "forced" not in captured.out
        assert "128 images" in captured.out and "noise" not in captured.out


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
    root: str,
    tmp_path: Path,
) -> None:
    """No classes in the folder, the better of two settings, and what each product costs, kept in
    the file."""
    measured(monkeypatch, 2.0)
    folder = flat_folder(root, tmp_path / "flat", 140)
    words = ["export", SHIPPED, "--precision", "int8", "--images", str(folder)]
    more = ["--percentile", "99.95", "--sensitivity", "--json"]
    assert main([*words, *more]) == 0
    captured = capsys.readouterr()
    assert "ranges from 40 images, judged by 100 others" in captured.err
    assert f"images: {folder}, a folder of 140 images" in captured.err
    found = json.loads(captured.out)["judged"]
    tried = re.findall(r"percentile (.*), smoothing (.*): signal to noise (.*) dB", captured.err)
    assert [one[:2] for one in tried] == [("99.95", "0"), ("99.95", "0.5")]
    best = max(tried, key=lambda one: float(one[2]))
    assert found["setting"] == {"percentile": 99.95, "smooth": float(best[1])}
    about = open_exported(Path("fashion-demo.onnx")).about
    assert set(about["judged"]["costs"]) == set(about["eight_bits"]) | set(found["in_float"])
    assert main([*words, "--out", "b.onnx", "--count", "60"]) == 2
    err = capsys.readouterr().err
    assert "140 images, of which --count 60 takes too few: give --count 132 or more" in err
    for path in list(folder.iterdir())[:10]:
        path.unlink()
    assert main([*words, "--out", "b.onnx"]) == 2
    assert "found 130 images in all: give more images" in capsys.readouterr().err


def flat_folder(root: str, folder: Path, count: int) -> Path:
    """Images of all classes, in one folder."""
    from PIL import Image

    from mixerkit.data.sources import open_source

    split = open_source("fashion-mnist", root).test
    assert split is not None and split.images is not None
    folder.mkdir()
    for number in range(count):
        Image.fromarray(split.images[number, ..., 0]).save(folder / f"{number:03}.png")
    return folder


def test_images_in_a_folder_of_any_kind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: str, tmp_path: Path
) -> None:
    """A folder without classes, also below --root; one with classes, and stray images beside them;
    one for testing only."""
    flat_folder(root, tmp_path / "flat", 12)
    for name in ("two/a", "two/b", "test-only/test/a", "test-only/test/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        flat_folder(root, tmp_path / name, 3)
    (tmp_path / "flat/000.png").rename(tmp_path / "two/stray.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name, count, said in (
        ("flat", 11, "a folder of 11 images"),
        ("two", 6, "1 file that is not an image of a class was left out: stray.png"),
        ("test-only", 6, "test-only"),
    ):
        for words in (["--images", f"../{name}"], ["--images", name, "--root", ".."]):
            out = f"{name}-{len(words)}.onnx"
            assert main(["export", SHIPPED, *words, "--out", out, "--json"]) == 0
            captured = capsys.readouterr()
            assert json.loads(captured.out)["compared"][0]["images"] == count
            assert said in captured.err
    assert main(["export", SHIPPED, "--images", "../two", "--count", "4", "--out", "a.onnx"]) == 0
    out = capsys.readouterr().out
    assert "4 images" in out and "noise" not in out


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MlpMixer:
    """A run's model, whose set is in another place than when it was trained: what is loaded."""
    model = loading.load(SHIPPED)
    data = {"source": "fashion-mnist", "root": "/gone", "holdout": 150}
    model.about = dict(model.about) | {"data": data}
    monkeypatch.setattr(loading, "load", lambda *given, **options: model)
    return model


def test_the_set_of_a_run_that_was_moved(
    moved: MlpMixer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    root: str,
    tmp_path: Path,
) -> None:
    """The images that it was not trained on judge, in the new place too."""
    measured(monkeypatch, 2.0)
    words = ["export", "run", "--precision", "int8", "--smooth", "0", "--percentile", "100"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "found no folder /gone" in err and "--root FOLDER says where a named set is now" in err
    assert "data.root" not in err and list(tmp_path.iterdir()) == []
    assert main([*words, "--root", root, "--count", "60"]) == 2
    said = "450 images and 150 for validation, of which --count 60 takes too few: give --count 66"
    assert said in capsys.readouterr().err
    assert main([*words, "--root", root, "--force"]) == 0
    assert "ranges from 450 images, judged by 150 others" in capsys.readouterr().err


def test_its_own_set_by_name_is_divided_as_in_training(
    moved: MlpMixer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    root: str,
) -> None:
    """And the same set in another folder is other data."""
    measured(monkeypatch, 2.0)
    data: dict[str, Any] = dict(moved.about)["data"]
    moved.about = dict(moved.about) | {"data": data | {"root": root}}
    words = ["export", "run", "--precision", "int8", "--smooth", "0", "--percentile", "100"]
    elsewhere = str(Path(root).parent)
    for more, learn, judge in (([], 450, 150), (["--root", elsewhere], 300, 300)):
        given = [*words, "--images", "fashion-mnist", "--count", "600", *more]
        assert main([*given, "--force", "--out", f"{learn}.onnx"]) == 0
        said = f"ranges from {learn} images, judged by {judge} others"
        assert said in capsys.readouterr().err


def test_a_bad_setting_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: str, tmp_path: Path
) -> None:
    """Half of all values are cut off: whatever stays in float does not help, nor does the speed."""
    measured(monkeypatch, 2.0)
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


def test_eight_bits_for_openvino_without_onnxruntime(
    without: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    root: str,
) -> None:
    """OpenVINO finds the ranges, too."""
    without("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # type: ignore[arg-type]
    measured(monkeypatch, 2.0)
    words = ["--precision", "int8", "--images", "fashion-mnist", "--root", root, "--count", "140"]
    one = ["--percentile", "100", "--smooth", "0.5"]
    assert main(["export", SHIPPED, *words, *one, "--to", "openvino", "--force"]) == 0
    assert open_exported(Path("fashion-demo.xml")).about["judged"]["setting"]["smooth"] == 0.5
