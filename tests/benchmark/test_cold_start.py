"""The bench of cold starts: every contender answers, and failures are told."""

import sys

import pytest

from mixerkit.benchmark import cold_start
from mixerkit.benchmark.cold_start import timed
from mixerkit.results import read_results


@pytest.mark.slow
def test_a_quick_bench_has_a_row_for_each_contender(tmp_path) -> None:
    rows = cold_start.study(tmp_path / "a.json", lambda line: None, quick=True)
    assert read_results(tmp_path / "a.json")["rows"] == rows
    names = [row["contender"] for row in rows]
    assert names == ["exported, onnxruntime", "exported, openvino", "PyTorch", "timm"]
    for row in rows:
        assert 0 < row["seconds"] <= row["slowest_seconds"]
        assert 0.01 < row["peak_gib"] < 4


def test_memory_and_time_of_a_process() -> None:
    code = "import time; x = bytearray(300 << 20); time.sleep(0.3)"
    seconds, peak = timed([sys.executable, "-c", code])
    assert 0.3 < seconds < 10 and 0.29 < peak < 0.4


def test_a_contender_that_fails_is_told() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        timed([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
