"""The table of exported models: its rows, and that a wrong graph would show in it."""

from pathlib import Path

import pytest

from mixerkit.inference.native import multiplies_eight_bits
from mixerkit.results import read_results
from mixerkit.spec.mixer import variant
from mixerkit.study import parity
from mixerkit.study.parity import PRECISIONS


def test_a_quick_table_has_a_row_for_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    samples = str(repository / "tests/samples/fashion-mnist")
    monkeypatch.setattr(parity, "open_source", lambda name: open_samples(samples))
    from mixerkit.data.sources import open_source as open_real

    def open_samples(root: str):  # type: ignore[no-untyped-def]
        return open_real("fashion-mnist", root)

    said: list[str] = []
    rows = parity.study(tmp_path / "a.json", said.append, quick=True)
    assert read_results(tmp_path / "a.json")["rows"] == rows
    ways = {(row["model"], row["target"], row["precision"], row["runtime"]) for row in rows}
    of_onnx = [2 + (precision != "int8" or multiplies_eight_bits()) for precision in PRECISIONS]
    assert len(ways) == len(rows) == 2 * sum(2 * own + 1 for own in of_onnx)
    for row in rows:
        most = {"float32": 1e-5, "float16": 1e-2, "int8": 0.5}[row["precision"]]
        assert 0 < row["relative"] < most
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_no_tensor_of_the_models_is_as_it_starts() -> None:
    """One that an export left out would be 0 or 1 without being noticed."""
    model = parity.moved(variant("N/7", in_channels=1, num_classes=10))
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        assert values.std() > 0.01 and (values != 0).all() and (values != 1).all(), name
