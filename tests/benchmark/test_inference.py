"""The bench of inference: its rows and shares add up, each precision has peers of its own."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.benchmark import best_setting, inference
from mixerkit.benchmark.ceilings import Ceiling
from mixerkit.benchmark.contenders import Contender, Contenders
from mixerkit.benchmark.inference import ALONE, PREPARED, batches_of, prepared
from mixerkit.benchmark.turns import in_turns
from mixerkit.cli.bench import main
from mixerkit.errors import RunFailed, UserError
from mixerkit.inference.exported import normalised
from mixerkit.inference.runtimes import Run
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
    return Contender(name, kind, lambda x: x, lambda x: x, "a setting", 8, 1.0)


SHARE = {"share_of_ceiling": 0.5}
FLOAT32 = [contender("timm a", "float32"), contender("timm b", "float32")]
BFLOAT16 = [contender("timm c", "bfloat16"), contender("mixerkit bfloat16", "bfloat16")]
INT8 = [contender("mixerkit int8", "int8")]
SECONDS = {
    ("timm a", ALONE): [[4.0, 4.0], [4.0]],
    ("timm b", ALONE): [[2.0], [2.0, 10.0, 2.0]],
    ("timm c", ALONE): [[3.0], [6.0]],
    ("mixerkit bfloat16", ALONE): [[1.0], [2.0]],
    ("mixerkit int8", ALONE): [[1.0], [1.0]],
}


def test_a_contender_is_compared_with_the_best_peer_in_its_precision() -> None:
    rows = {
        one.name: inference._row(one, ALONE, 8, SECONDS, ready)
        for ready in (FLOAT32, BFLOAT16, INT8)
        for one in ready
    }
    assert [row["over_best_peer"] for row in rows.values()] == [0.5, 1.0, 1.0, 3.0, None]
    assert rows["mixerkit bfloat16"]["best_peer"] == "timm c"
    assert rows["timm b"]["calls"] == 4 and rows["timm b"]["rounds"] == 2
    assert rows["timm b"]["images_per_second"] == 4
    assert rows["timm b"]["milliseconds_50"] == 2000
    assert rows["timm b"]["milliseconds_90"] is rows["timm b"]["milliseconds_99"] is None
    assert rows["timm b"]["over_best_peer_quartiles"] == [1, 1]
    assert rows["mixerkit int8"]["over_best_peer_quartiles"] is None


def test_rounds_are_told_with_their_quartiles() -> None:
    """And percentiles only of many calls."""
    five = {
        ("timm c", ALONE): [[2.0 + i] for i in range(5)],
        ("mixerkit bfloat16", ALONE): [[1.0] * 3] * 5,
    }
    rows = [inference._row(one, ALONE, 8, five, BFLOAT16) | SHARE for one in BFLOAT16]
    assert rows[1]["over_best_peer_quartiles"] == [3, 5] and rows[1]["over_best_peer"] == 4
    theirs, ours = inference._lines(rows).splitlines()[1:]
    assert "4.00× (3.00–5.00)" in ours and "p50 1000.00, p90 1000.00 ms;" in ours
    assert "p50 4000.00 ms;" in theirs


@pytest.mark.parametrize(
    ("seconds", "rounds"), [(0.3, 41), (1.5, 20), (6.0, 7), (42.0, 7), (60.0, 5), (120.0, 3)]
)
def test_rounds_are_enough_where_time_allows(seconds: float, rounds: int) -> None:
    ready = [Contender("timm a", "int8", str, str, "", 8, seconds / 2)] * 2
    assert inference._rounds(ready, False, 0) == rounds


def test_the_ceiling_is_the_best_rate() -> None:
    model = prepared("zoo:fashion-demo")
    found = {
        Ceiling("float32", "PyTorch", 0, 8): 1e9,
        Ceiling("float32", "openvino", 0, 4): 4e9,
        Ceiling("float32", "openvino", 0, 8): 3e9,
    }
    share = inference._share(model, 2e9 / (2 * cost(model.config).macs), found)
    assert share["share_of_ceiling"] == pytest.approx(0.5)
    assert share["ceiling"] == "float32 products by openvino, 4 images at once"


def replaced(monkeypatch: pytest.MonkeyPatch, **changed: Run) -> list[str]:
    """Contenders that give what the model gives, but for those that are changed: "a" and "c" are
    timm's; who was started alone."""
    model = prepared("zoo:fashion-demo")

    def right(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).numpy()

    started: list[str] = []
    kinds = {"timm_a": "float32", "timm_c": "float32", "mixerkit_b": "int8"}

    class Few(Contenders):
        def _add_peer(self, name: str, peer: object) -> None:
            pass

        def _add_ours(self, name: str, kind: str) -> None:
            self.peers = {name: Path() for name in kinds}

        def kinds(self) -> list[str]:
            return sorted({kinds[name] for name in self.peers})

        def at(self, pixels: np.ndarray, kind: str) -> list[Contender]:
            def from_pixels(pixels: np.ndarray) -> np.ndarray:
                return right(normalised(pixels, model.preprocess))

            return [
                Contender(name, kind, changed.get(name, right), from_pixels, "so", 8, 0.01)
                for name in self.peers
                if kinds[name] == kind
            ]

        def alone(self, images: tuple[int, ...]) -> list[dict]:
            started.extend(self.peers)
            return []

    monkeypatch.setattr(inference, "Contenders", Few)
    monkeypatch.setattr(inference, "in_turns", partial(in_turns, turn=0.0))
    monkeypatch.setattr(
        inference, "ceilings", lambda config, kind, images: {Ceiling(kind, "none", 1, 1): str}
    )
    monkeypatch.setattr(inference, "memory_bandwidth", lambda: 1.0)
    return started


def test_what_gives_wrong_outputs_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no row, nobody is compared with it, and the others' rows are written."""
    zeros = {"timm_a": lambda images: np.zeros((len(images), 10), np.float32)}
    started = replaced(monkeypatch, **zeros)
    out = tmp_path / "a.json"
    with pytest.raises(RunFailed, match=r"timm_a: gives outputs .* for 1 images\..*a\.json"):
        inference.study(out, lambda line: None, True, "zoo:fashion-demo")
    content = read_results(out)
    names = {(row["contender"], row["best_peer"]) for row in content["rows"]}
    assert names == {("timm_c", "timm_c"), ("mixerkit_b", None)}
    assert content["settings"]["left_out"]["timm_a"].startswith("wrong: gives outputs")
    assert started == ["timm_c", "mixerkit_b"]


def test_8_bits_are_judged_by_their_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, mixerkit_b=lambda images: np.ones((len(images), 10), np.float32))
    with pytest.raises(RunFailed, match=r"mixerkit_b: gives outputs of -.* dB signal to noise"):
        inference.study(tmp_path / "a.json", lambda line: None, True, "zoo:fashion-demo")


def test_nobody_to_measure_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict.fromkeys(("timm_a", "timm_c", "mixerkit_b"), lambda images: images[:, 0, 0, :10])
    replaced(monkeypatch, **wrong)
    with pytest.raises(RunFailed, match=r"Nobody is left to measure\. timm_a: wrong"):
        inference.study(tmp_path / "a.json", lambda line: None, True, "zoo:fashion-demo")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_quick_bench_writes_a_row_for_each_contender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed as one line of JSON, the only one on stdout; and put into a table."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(inference, "in_turns", partial(in_turns, turn=0.01))
    monkeypatch.setattr(best_setting, "TURN", 0.01)
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
        told = [row[f"milliseconds_{p}"] for p in (50, 90, 99) if row[f"milliseconds_{p}"]]
        assert told == sorted(told) and (len(told) == 3) is (row["calls"] >= 100)
        if row["best_peer"]:
            low, high = row["over_best_peer_quartiles"]
            assert row["rounds"] == 3 and low <= row["over_best_peer"] <= high
        assert row["share_of_ceiling"] > 0 and row["ceiling"].startswith(row["kind"])
        assert row["input"] in (ALONE, PREPARED) and row["setting"]
        assert row["largest_difference"] < (1e-3 if row["kind"] == "float32" else 3)
    _check_settings(content["settings"], names)
    table = of_inference(content)
    assert table.count("\n") == 1 + 2 * len(names) + len(content["settings"]["left_out"])
    assert "mixerkit int8, with preprocessing" in table and "% of ceiling" in table


def _check_settings(settings: dict, names: set[str]) -> None:
    assert {row["contender"] for row in settings["alone"]["rows"]} == names
    assert all(0.02 < row["peak_gib"] < 8 for row in settings["alone"]["rows"])
    assert all(1 <= row["trials"] <= 3 for row in settings["alone"]["rows"])
    assert {row["kind"] for row in settings["ceilings"]} >= {"float32", "int8"}
    assert {row["batch"] for row in settings["ceilings"]} == {1, 4}
    assert settings["memory_bytes_per_second"] > 1e8
    assert settings["seed"] == 0


def test_what_is_left_out_is_in_the_table() -> None:
    row = {"contender": "timm a", "input": ALONE, "kind": "float32", "batch": 8}
    row |= {"over_best_peer": 1.1, "over_best_peer_quartiles": [1.05, 1.25]}
    row |= {"share_of_ceiling": 0.456, "images_per_second": 1234.5}
    more = row | {"contender": "timm c", "batch": 32, "over_best_peer": None}
    why = {"timm b": "not installed: pip install nncf"}
    table = of_inference({"rows": [row, more], "settings": {"left_out": why}})
    assert table.splitlines()[2:] == [
        "| timm a | float32 | 1,234.5 (1.10×, 1.05–1.25, 46 % of ceiling) | |",
        "| timm c | float32 | | 1,234.5 (46 % of ceiling) |",
        "| timm b | not installed: pip install nncf | |  |",
    ]
