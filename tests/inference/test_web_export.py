"""The folder of a page, without a browser: what is in it, what it says, what is refused; and where
onnxruntime-web comes from, with a program in npm's place."""

import hashlib
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.manifest import verify_folder
from mixerkit.data.decode import FORMATS
from mixerkit.errors import Refused, UserError
from mixerkit.inference import web_export as module, web_runtime
from mixerkit.inference.exported import open_exported
from mixerkit.inference.web_export import MEDIA, web_export
from mixerkit.inference.web_runtime import TAKEN, Taken, npm_pack, runtime_files
from mixerkit.model.mixer import MlpMixer

RUNTIME = {one: one.name.encode() for one in TAKEN}
WEB = Path(module.__file__).parent / "web"


@pytest.fixture
def model() -> MlpMixer:
    return load("zoo:fashion-demo")


def noise(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), np.uint8)


def test_a_folder(model: MlpMixer, tmp_path: Path) -> None:
    """Page, model, runtime; checksums; what was compared; the units' weights in 8 bits."""
    out = tmp_path / "page"
    written = web_export(model, out, noise(), RUNTIME, title="demo")
    assert {path.name for path in WEB.iterdir()} < {path.name for path in written.files}
    assert {path.name for path in (out / "onnxruntime").iterdir()} == {one.served for one in TAKEN}
    verify_folder(out)
    about = json.loads((out / "model.json").read_text(encoding="utf-8"))
    assert about["title"] == "demo" and about["classes"][9] == "Ankle boot"
    assert about["image"]["interpolation"] == "bilinear"
    assert about["compared"][0]["runtime"] == "onnxruntime"
    assert about["compared"][0]["top1_agreement"] == 1
    assert about["bytes"] == sum((out / one).stat().st_size for one in about["files"].values())
    weight_TS = model.blocks[0].token_mixing.fc1.weight.detach().numpy()
    units_TS = np.frombuffer((out / "units.bin").read_bytes(), np.int8).reshape(weight_TS.shape)
    scale_T1 = np.abs(weight_TS).max(axis=1, keepdims=True)
    np.testing.assert_allclose(units_TS / 127, weight_TS / scale_T1, atol=0.5 / 127 + 1e-6)
    assert open_exported(out / "model.onnx").about["input"] == "pixels"


def test_what_no_page_can_show(model: MlpMixer, tmp_path: Path) -> None:
    out = tmp_path / "page"
    torch.nn.init.zeros_(model.head.weight)
    for changes, says in (
        ({"num_classes": 0}, "no head"),
        ({"in_channels": 2}, "1 (grey) or 3 (RGB) channels, the model 2"),
        ({}, "the same outputs for all images"),
    ):
        other = MlpMixer(replace(model.config, **changes)) if changes else model
        with pytest.raises(UserError) as caught:
            web_export(other, out, noise(), RUNTIME, title="demo")
        assert says in str(caught.value)
    out.mkdir()
    with pytest.raises(UserError, match="already exists and is never overwritten"):
        web_export(model, out, noise(), RUNTIME, title="demo")
    assert list(tmp_path.iterdir()) == [out] and list(out.iterdir()) == []


def test_a_wrong_model_leaves_no_folder(
    model: MlpMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixerkit.inference import export

    right = export.mixer_graph

    def wrong(config: Any, weights: dict[str, np.ndarray], *rest: Any) -> Any:
        return right(config, weights | {"head.bias": weights["head.bias"] + 0.1}, *rest)

    monkeypatch.setattr(export, "mixer_graph", wrong)
    with pytest.raises(Refused, match="differs by"):
        web_export(model, tmp_path / "page", noise(), RUNTIME, title="demo")
    assert list(tmp_path.iterdir()) == []


def test_the_page_says_what_python_reads() -> None:
    """Formats are some of those that the decoder has; there is a policy, and no address."""
    assert set(MEDIA) < set(FORMATS)
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "connect-src 'self'" in page
    assert [path.name for path in WEB.iterdir() if "://" in path.read_text("utf-8")] == []


# -- where the runtime comes from --------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two small files, and a program in npm's place that packs it."""
    dist = tmp_path / "made" / "package" / "dist"
    dist.mkdir(parents=True)
    taken = []
    for one in TAKEN:
        (dist / one.name).write_text(f"content of {one.name}")
        digest = hashlib.sha256((dist / one.name).read_bytes()).hexdigest()
        taken.append(Taken(one.name, one.served, digest))
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(dist.parent, "package")
    monkeypatch.setattr(web_runtime, "TAKEN", tuple(taken))
    sha512 = hashlib.sha512(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(web_runtime, "SHA512", sha512)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MIXERKIT_OFFLINE", raising=False)
    programs(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked; cp {archive} "$4"')
    return tmp_path


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have `npm` be a shell script."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (bin_ / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_fetched_once_and_kept(packed: Path) -> None:
    found = runtime_files()
    assert [content.decode() for content in found.values()] == [
        f"content of {one.name}" for one in TAKEN
    ]
    assert runtime_files() == found
    (asked,) = (packed / "asked").read_text().splitlines()
    assert asked.startswith("pack onnxruntime-web@1.30.0 --pack-destination ")
    assert asked.endswith(" --ignore-scripts")


def test_from_a_folder(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own, however deep the user names it; other content is refused."""
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    made = packed / "made"
    found = runtime_files(made)
    assert runtime_files(made / "package") == runtime_files(made / "package" / "dist") == found
    (made / "package" / "dist" / TAKEN[1].name).write_text("other")
    with pytest.raises(UserError, match=r"is not that of onnxruntime-web 1\.30\.0: expected SHA"):
        runtime_files(made)
    with pytest.raises(UserError, match="expected files of npm's onnxruntime-web"):
        runtime_files(packed)
    assert not (packed / "asked").exists()


def test_offline_says_what_to_do(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    with pytest.raises(UserError, match=r"MIXERKIT_OFFLINE forbids to fetch it: .*--runtime-files"):
        runtime_files()
    assert not (packed / "asked").exists() and not (packed / "cache").exists()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'npm error code E404' >&2; exit 1", "npm could not fetch .*npm error code E404"),
        ("exit 1", "no message"),
        ('echo other > "$4/a.tgz"', "not the expected one: its SHA-512 is"),
    ],
)
def test_npm_that_fails(
    packed: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    programs(packed, monkeypatch, script)
    with pytest.raises(UserError, match=says):
        runtime_files()
    assert not (packed / "cache").exists()


def test_no_npm(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(packed))
    with pytest.raises(UserError, match="comes from npm, which is not installed: do this"):
        npm_pack("a@1", "", packed, "do this")
