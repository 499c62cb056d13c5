"""`mixer bench int8`, small: what is measured on what, and what the gate says."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mixerkit.data.sources import open_source
from mixerkit.data.splits import Splits
from mixerkit.errors import UserError
from mixerkit.inference import gate
from mixerkit.inference.native import multiplies_eight_bits
from mixerkit.study import int8 as module


def small(repository: Path) -> Splits:
    """Few real images: the test images of the sample also stand for training images."""
    root = str(repository / "tests/samples/fashion-mnist")
    found = open_source("fashion-mnist", root)
    assert found.test is not None
    return Splits(found.train, None, found.test, "the sample")


def test_rows_of_every_kind(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = gate.Speed(2.0, 1.9, 2.1, "openvino")
    monkeypatch.setattr(gate, "speed_up", lambda *given: speed)
    monkeypatch.setattr(module, "opened", lambda data: small(repository))
    said: list[str] = []
    out = tmp_path / "int8.json"
    rows = module.study(out, said.append, quick=True, model="zoo:fashion-demo")
    kinds = Counter(row["kind"] for row in rows)
    products = json.loads(out.read_text())["rows"][-2]["costs"]
    answer = 3 if multiplies_eight_bits() else 2  # runtimes, and our own code
    accuracies = 1 + 2 * answer
    assert kinds == {"setting": 6, "accuracy": accuracies, "product": len(products), "gate": 2}
    accuracy = {(r["precision"], r["runtime"]): r for r in rows if r["kind"] == "accuracy"}
    whole = accuracy["float32", "pytorch"]
    assert whole["agreement"] == 1 and whole["top1"] > 0.8
    for (precision, runtime), row in accuracy.items():
        assert row["agreement"] >= (0.97 if precision == "int8" else 1), (precision, runtime)
        assert abs(row["top1"] - whole["top1"]) <= 1 - row["agreement"]
    chosen, bad = (row for row in rows if row["kind"] == "gate")
    assert chosen["passes"] and not chosen["said"]
    assert not bad["passes"] and "Not kept in 8 bits" in bad["said"]
    assert bad["setting"]["percentile"] == 50 and bad["in_float"]
    assert out.with_suffix(".png").stat().st_size > 10_000
    decibels = [row["signal_to_noise"] for row in rows if row["kind"] == "product"]
    assert decibels == sorted(decibels) and all(value > 10 for value in decibels)


def test_a_model_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say what it was trained on"):
        module.study(tmp_path / "a.json", print, model="N/7")
    assert not list(tmp_path.iterdir())
