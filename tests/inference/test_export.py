"""Exported files: what they give, what they say of themselves, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mixerkit.errors import Refused, UserError
from mixerkit.inference import export as module
from mixerkit.inference.export import export
from mixerkit.inference.exported import open_exported
from mixerkit.inference.mixer_graph import METADATA, Form
from mixerkit.inference.predictor import predict_files
from mixerkit.inference.readers import SUFFIX, Target
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

CONFIG = MixerConfig(
    image_size=(24, 16),
    patch_size=4,
    in_channels=3,
    width=16,
    depth=2,
    token_width=12,
    channel_width=32,
    num_classes=4,
)
NAMES = ("ant", "bee", "cat", "dog")
TARGETS: tuple[Target, ...] = ("onnx", "openvino")


@pytest.fixture
def model() -> MlpMixer:
    torch.manual_seed(0)
    made = MlpMixer(CONFIG)
    torch.nn.init.normal_(made.head.weight)
    made.preprocess = Preprocess(
        image_size=CONFIG.image_size, mean=(0.4, 0.5, 0.6), std=(0.2,), class_names=NAMES
    )
    return made


def pixels(count: int = 20) -> np.ndarray:
    shape = (count, 3, *CONFIG.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize(
    "form", [Form(), Form(pixels=True), Form(probabilities=True), Form(True, True, True)]
)
def test_what_is_written_gives_what_the_model_gives(
    model: MlpMixer, tmp_path: Path, to: Target, form: Form
) -> None:
    written = export(model, tmp_path / f"a{SUFFIX[to]}", pixels(), to=to, form=form)
    runtimes = [one.runtime for one in written.comparisons]
    assert runtimes == (["onnxruntime", "openvino", "native"] if to == "onnx" else ["openvino"])
    assert all(one.images == 20 and one.top1_agreement == 1 for one in written.comparisons)
    assert files_in(tmp_path) == (["a.onnx"] if to == "onnx" else ["a.bin", "a.xml"])
    assert written.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    model.eval()
    wanted = module.eager_logits(model, pixels())
    for runtime in runtimes:
        found = open_exported(tmp_path / f"a{SUFFIX[to]}", runtime)  # type: ignore[arg-type]
        p = torch.from_numpy(wanted).softmax(dim=1).numpy()
        close = 2e-2 if form.half else 1e-5
        np.testing.assert_allclose(found.probabilities(pixels()), p, atol=close)
        shifted = found.logits(pixels()) - wanted  # of probabilities, up to a constant
        assert np.ptp(shifted, axis=1).max() < (0.2 if form.half else 1e-4)


def test_float16_takes_half_the_bytes(model: MlpMixer, tmp_path: Path) -> None:
    wide = MlpMixer(MixerConfig(image_size=16, width=128, depth=2, num_classes=4))
    torch.nn.init.normal_(wide.head.weight)
    wide.preprocess = Preprocess(image_size=16)
    noise = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8)
    for to in TARGETS:
        whole = export(wide, tmp_path / f"whole{SUFFIX[to]}", noise, to=to)
        half = export(wide, tmp_path / f"half{SUFFIX[to]}", noise, to=to, form=Form(half=True))
        assert half.size < 0.56 * whole.size
        assert half.comparisons[0].relative > 10 * whole.comparisons[0].relative


@pytest.mark.parametrize("to", TARGETS)
def test_the_file_says_what_it_is(model: MlpMixer, tmp_path: Path, to: Target) -> None:
    written = export(model, tmp_path / f"a{SUFFIX[to]}", pixels(), to=to)
    found = open_exported(written.files[-1])
    assert found.config == CONFIG and found.preprocess == model.preprocess
    assert found.runtime == ("onnxruntime" if to == "onnx" else "openvino")
    assert [one["runtime"] for one in found.about["compared"]] == [
        one.runtime for one in written.comparisons
    ]
    assert found.about["forced"] is False
    assert str(tmp_path) not in written.files[-1].read_bytes().decode("latin-1")


def test_predictions_are_those_of_the_model(model: MlpMixer, tmp_path: Path) -> None:
    from PIL import Image

    files = []
    for number in range(5):
        files.append(tmp_path / f"{number}.png")
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(files[-1])
    (path,) = export(model, tmp_path / "a.onnx", pixels()).files
    for options in ({}, {"tiles": 2}, {"top": 2, "batch_size": 2}):
        ours: Any = list(predict_files(open_exported(path), files, **options))  # type: ignore[arg-type]
        wanted: Any = list(predict_files(model, files, **options))  # type: ignore[arg-type]
        for one, other in zip(ours, wanted, strict=True):
            assert [name for name, _ in one.classes] == [name for name, _ in other.classes]
            p = [p for _, p in other.classes]
            assert [p for _, p in one.classes] == pytest.approx(p, abs=1e-5)


def test_a_wrong_graph_is_refused_and_leaves_nothing(
    model: MlpMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures are said; forced, it is written and says that it was."""
    right = module.mixer_graph

    def wrong(config: MixerConfig, weights: dict[str, np.ndarray], *rest: Any) -> Any:
        return right(config, weights | {"head.bias": weights["head.bias"] + 0.1}, *rest)

    monkeypatch.setattr(module, "mixer_graph", wrong)
    with pytest.raises(Refused, match=r"differs by 0\.1, 0\.\d+ of the largest one"):
        export(model, tmp_path / "a.onnx", pixels())
    assert files_in(tmp_path) == []
    export(model, tmp_path / "a.onnx", pixels(), force=True)
    assert open_exported(tmp_path / "a.onnx").about["forced"] is True


def test_what_cannot_be_compared_is_refused(model: MlpMixer, tmp_path: Path) -> None:
    torch.nn.init.zeros_(model.head.weight)
    with pytest.raises(UserError, match="the same outputs for all images"):
        export(model, tmp_path / "a.onnx", pixels())
    assert files_in(tmp_path) == []
    export(model, tmp_path / "a.onnx", pixels(), force=True)
    assert open_exported(tmp_path / "a.onnx").about["forced"] is True


def test_nothing_is_overwritten(model: MlpMixer, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("mine")
    (tmp_path / "a.bin").write_text("mine")
    for name, to in (("a.onnx", "onnx"), ("a.xml", "openvino")):
        with pytest.raises(UserError, match="never overwritten"):
            export(model, tmp_path / name, pixels(), to=to)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"a file \*\.xml, found b\.onnx"):
        export(model, tmp_path / "b.onnx", pixels(), to="openvino")
    with pytest.raises(UserError, match=r"The folder .*no to write"):
        export(model, tmp_path / "no" / "b.onnx", pixels())
    assert files_in(tmp_path) == ["a.bin", "a.onnx"]


def test_files_that_are_no_exported_models(model: MlpMixer, tmp_path: Path) -> None:
    (whole,) = export(model, tmp_path / "a.onnx", pixels()).files
    content = whole.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"ONNX Runtime cannot read .*cut\.onnx"):
        open_exported(tmp_path / "cut.onnx")
    with pytest.raises(UserError, match=r"OpenVINO cannot read .*cut\.onnx"):
        open_exported(tmp_path / "cut.onnx", "openvino")
    _, xml = export(model, tmp_path / "b.xml", pixels(), to="openvino").files
    with pytest.raises(UserError, match="ONNX Runtime cannot read it"):
        open_exported(xml, "onnxruntime")
    xml.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"Cannot read .*b\.bin: No such file.*b\.xml is of no use"):
        open_exported(xml)
    with pytest.raises(UserError, match="No exported model"):
        open_exported(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("preprocess", {"class_names": ["a", "b"]}, "2 names for 4 classes"),
        ("preprocess", {"image_size": 8}, "images of 3 × 24 × 16 .* gives 3 × 8 × 8:"),
        (
            "preprocess",
            {"channels": 1, "mean": [0.5], "std": [0.5]},
            "3 × 24 × 16 .* gives 1 × 24 × 16",
        ),
        ("model", {"num_classes": 7}, "4 names for 7 classes"),
    ],
)
def test_a_file_that_contradicts_itself(
    model: MlpMixer, tmp_path: Path, part: str, changes: dict[str, Any], says: str
) -> None:
    (path,) = export(model, tmp_path / "a.onnx", pixels()).files
    graph = onnx.load(path)
    about = json.loads(graph.metadata_props[0].value)
    about[part] |= changes
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(about)})
    onnx.save(graph, path)
    with pytest.raises(UserError, match=says):
        open_exported(path)


def test_files_that_may_not_be_read(
    model: MlpMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = export(model, tmp_path / "a.onnx", pixels()).files

    def refuse(*given: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"Cannot read .*a\.onnx: Permission denied"):
        open_exported(path)


def test_a_graph_of_somebody_else(tmp_path: Path) -> None:
    import onnx

    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [1]) for n in "xy")
    graph = onnx.helper.make_graph([node], "other", [x], [y])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "o.onnx")
    with pytest.raises(UserError, match="does not say what it is"):
        open_exported(tmp_path / "o.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        "{}",
        '{"model": {}, "preprocess": null, "input": "normalised"}',
        '{"model": {}, "preprocess": null, "input": "words", "output": "logits"}',
        '{"model": {"depht": 3}, "preprocess": null, "input": "pixels", "output": "logits"}',
        '{"model": {}, "preprocess": {"mean": 7}, "input": "pixels", "output": "logits"}',
    ],
)
def test_metadata_that_make_no_sense(model: MlpMixer, tmp_path: Path, text: str) -> None:
    """The error names the file."""
    import onnx

    (path,) = export(model, tmp_path / "a.onnx", pixels()).files
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"mixerkit": text})
    onnx.save(graph, tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"b\.onnx"):
        open_exported(tmp_path / "b.onnx")


def test_too_few_images_are_refused(model: MlpMixer, tmp_path: Path) -> None:
    for count in (0, 1):
        with pytest.raises(UserError, match="at least two images"):
            export(model, tmp_path / "a.onnx", pixels(count))
    model.preprocess = None
    with pytest.raises(UserError, match="preprocess"):
        export(model, tmp_path / "a.onnx", pixels())


@pytest.mark.parametrize("to", TARGETS)
def test_predicting_needs_no_pytorch(model: MlpMixer, tmp_path: Path, to: Target) -> None:
    """In a Python that has none, and no onnx either."""
    from PIL import Image

    *_, path = export(model, tmp_path / f"a{SUFFIX[to]}", pixels(), to=to).files
    Image.fromarray(pixels(1)[0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    code = f"""
import sys
class Nowhere:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(f"no {{name}} here")
sys.meta_path.insert(0, Nowhere())
from mixerkit.cli.main import run_program
sys.argv = ["mixer", "predict", {str(tmp_path / "a.png")!r}, "--model", {str(path)!r}]
run_program()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert any(name in line for name in NAMES)
