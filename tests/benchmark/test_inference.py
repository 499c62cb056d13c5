"""The bench of inference: its peers give what the model gives, its rows and ceilings add up."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.benchmark import inference
from mixerkit.benchmark.deployed import peers
from mixerkit.benchmark.measure import int8_products, matrix_products
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import read_results
from mixerkit.spec.mixer import variant

CONFIG = variant("N/7", in_channels=1, num_classes=10)


@pytest.fixture
def model() -> MlpMixer:
    torch.manual_seed(0)
    made = MlpMixer(CONFIG).eval()
    torch.nn.init.normal_(made.head.weight)
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_every_peer_gives_what_the_model_gives(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with any batch size; in 8 bits about the same."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)  # takes long
    images = np.random.default_rng(0).standard_normal((3, 1, 28, 28), np.float32)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images)).numpy()
    ways = peers(model)
    assert len(ways) == 6
    for name, make in ways.items():
        run = make()
        for count in (3, 1):
            difference = np.abs(run(images[:count]) - wanted[:count]).max()
            assert difference < (1.0 * np.ptp(wanted) if name.endswith("int8") else 1e-4), name


def test_ceilings_are_of_the_models_own_products() -> None:
    for make in (matrix_products, int8_products):
        multiply, operations = make(CONFIG, 4)
        multiply()
        per_block = (
            2
            * CONFIG.num_patches
            * CONFIG.width
            * (2 * CONFIG.token_width + 2 * CONFIG.channel_width)
        )
        assert operations == 4 * per_block
    assert CONFIG.depth * per_block < 2 * cost(CONFIG).macs < 1.5 * CONFIG.depth * per_block


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_quick_bench_writes_a_row_for_each_contender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    rows = inference.study(tmp_path / "a.json", said.append, quick=True)
    content = read_results(tmp_path / "a.json")
    assert content["rows"] == rows
    assert content["command"] == "mixer bench inference --model zoo:fashion-demo --quick"
    names = {row["contender"] for row in rows}
    assert {"timm eager", "timm onnxruntime", "mixerkit float32", "mixerkit int8"} <= names
    assert len(rows) == 2 * len(names)
    for row in rows:
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["milliseconds"])
        assert row["share_of_float32_products"] > 0
        if row["contender"] in ("timm eager", "timm onnxruntime", "mixerkit float32"):
            assert row["largest_difference"] < 1e-3
    for batch in (1, 4):
        ratios = [row["over_best_peer"] for row in rows if row["batch"] == batch][:2]
        assert max(ratios) == 1.0
