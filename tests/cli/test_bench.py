import json
from pathlib import Path

import pytest

from mixerkit.study import time_to_accuracy


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], "results/time-to-accuracy.json"),
        (["--quick"], "results/time-to-accuracy-quick.json"),
        (["--quick", "--out", "a.json"], "a.json"),
    ],
)
def test_a_study_gets_its_file_and_its_rows_are_printed(mixer, monkeypatch, words, out):
    def study(path, say, quick):
        say("measuring")
        return [{"path": str(path), "quick": quick}]

    monkeypatch.setattr(time_to_accuracy, "study", study)
    code, printed, err = mixer("bench", "time-to-accuracy", "--json", *words)
    assert code == 0 and printed.count("\n") == 1
    assert json.loads(printed) == [{"path": out, "quick": "--quick" in words}]
    assert err == f"measuring\nwritten: {Path(out)}\n"
