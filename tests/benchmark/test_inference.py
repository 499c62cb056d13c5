"""The bench of inference: its rows and shares add up, each precision has peers of its own."""

import json
from pathlib import Path

import pytest
import torch

from mixerkit.benchmark import inference
from mixerkit.benchmark.ceilings import Ceiling
from mixerkit.benchmark.contenders import Contender
from mixerkit.benchmark.inference import ALONE, PREPARED, batches_of, prepared
from mixerkit.cli.bench import main
from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import read_results
from mixerkit.spec.mixer import variant
from tests.tables import of_inference


def test_fresh_weights_are_the_same_every_time() -> None:
    """The head, too, which is not zero; and nobody else's random numbers change."""
    state = torch.get_rng_state()
    one, other = prepared("N/7").state_dict(), prepared("N/7").state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["head.weight"].std() > 0.01


def test_a_trained_head_stays_as_it_is() -> None:
    from mixerkit.checkpoint.load import load

    name = "zoo:fashion-demo"
    assert torch.equal(prepared(name).head.weight, load(name).head.weight)


def test_which_batches_are_measured() -> None:
    small = prepared("zoo:fashion-demo")
    with torch.device("meta"):
        large = MlpMixer(variant("B/16"))
    assert {1, 256} <= set(batches_of(small, False)) and batches_of(large, False) == (1, 8, 32)
    assert len(batches_of(small, True)) == 2


def test_a_model_without_a_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared("zoo:fashion-demo")
    model.head = torch.nn.Identity()
    monkeypatch.setattr(inference, "load", lambda name: model)
    with pytest.raises(UserError, match="no head"):
        prepared("features")


def contender(name: str, kind: str) -> Contender:
    return Contender(name, kind, lambda x: x, lambda x: x, "a setting", 1.0)


READY = [
    contender("timm a", "float32"),
    contender("timm b", "float32"),
    contender("timm c", "bfloat16"),
    contender("mixerkit bfloat16", "bfloat16"),
    contender("mixerkit int8", "int8"),
]
SECONDS = {
    ("timm a", ALONE): [[4.0, 4.0], [4.0]],
    ("timm b", ALONE): [[2.0], [2.0, 10.0, 2.0]],
    ("timm c", ALONE): [[3.0], [6.0]],
    ("mixerkit bfloat16", ALONE): [[1.0], [2.0]],
    ("mixerkit int8", ALONE): [[1.0], [1.0]],
}


def test_a_contender_is_compared_with_the_best_peer_in_its_precision() -> None:
    rows = {one.name: inference._row(one, ALONE, 8, SECONDS, READY) for one in READY}
    assert [row["over_best_peer"] for row in rows.values()] == [0.5, 1.0, 1.0, 3.0, None]
    assert rows["mixerkit bfloat16"]["best_peer"] == "timm c"
    assert rows["timm b"]["calls"] == 4 and rows["timm b"]["rounds"] == 2
    assert rows["timm b"]["images_per_second"] == 4
    assert rows["timm b"]["milliseconds_50"] == 2000 < rows["timm b"]["milliseconds_99"] < 10000


def test_the_ceiling_is_the_best_rate_in_the_same_precision() -> None:
    model = prepared("zoo:fashion-demo")
    found = {
        Ceiling("float32", "PyTorch", 0, 8): 1e9,
        Ceiling("float32", "openvino", 0, 4): 4e9,
        Ceiling("int8", "openvino", 0, 4): 9e9,
    }
    share = inference._share(model, "float32", 2e9 / (2 * cost(model.config).macs), found)
    assert share["share_of_ceiling"] == pytest.approx(0.5)
    assert share["ceiling"] == "float32 products by openvino, 4 images at once"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_quick_bench_writes_a_row_for_each_contender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed as one line of JSON, the only one on stdout; and put into a table."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out = tmp_path / "a.json"
    assert main(["inference", "--quick", "--json", "--out", str(out)]) == 0
    content, (printed,) = read_results(out), capsys.readouterr().out.splitlines()
    rows = content["rows"]
    assert json.loads(printed) == rows
    assert content["command"] == "mixer bench inference --model zoo:fashion-demo --quick"
    names = {row["contender"] for row in rows}
    assert {"timm eager", "timm onnxruntime", "mixerkit float32", "mixerkit int8"} <= names
    assert len(rows) == 2 * 2 * len(names)
    for row in rows:
        rate = 1000 * row["batch"] / row["milliseconds_50"]
        assert row["images_per_second"] == pytest.approx(rate)
        assert row["milliseconds_50"] <= row["milliseconds_90"] <= row["milliseconds_99"]
        assert row["share_of_ceiling"] > 0 and row["ceiling"].startswith(row["kind"])
        assert row["input"] in (ALONE, PREPARED) and row["setting"]
        if row["kind"] == "float32":
            assert row["largest_difference"] < 1e-3
    _check_settings(content["settings"], names)
    table = of_inference(content)
    assert table.count("\n") == 1 + 2 * len(names) + len(content["settings"]["left_out"])
    assert "mixerkit int8, with preprocessing" in table and "% of ceiling" in table


def _check_settings(settings: dict, names: set[str]) -> None:
    assert {row["contender"] for row in settings["alone"]["rows"]} == names
    assert all(0.02 < row["peak_gib"] < 8 for row in settings["alone"]["rows"])
    assert {row["kind"] for row in settings["ceilings"]} >= {"float32", "int8"}
    assert {row["batch"] for row in settings["ceilings"]} == {1, 4}
    assert settings["memory_bytes_per_second"] > 1e8
    assert settings["seed"] == 0


def test_what_is_left_out_is_in_the_table() -> None:
    row = {"contender": "timm a", "input": ALONE, "kind": "float32", "batch": 8}
    row |= {"over_best_peer": 1.0, "share_of_ceiling": 0.456, "images_per_second": 1234.5}
    why = {"timm b": "not installed: pip install nncf"}
    table = of_inference({"rows": [row], "settings": {"left_out": why}})
    assert table.splitlines()[2:] == [
        "| timm a | float32 | 1,234.5 (1.00×, 46 % of ceiling) |",
        "| timm b | not installed: pip install nncf | |",
    ]
