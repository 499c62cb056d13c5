import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from mixerkit import results
from mixerkit.errors import UserError

ROW = {"name": "a", "command": "mixer bench", "settings": {"n": 1}, "rows": [{"seconds": 0.5}]}


def test_written_file_has_the_schema_and_reads_back(tmp_path):
    path = tmp_path / "deep" / "a.json"
    results.write_results(path, **ROW)
    text = path.read_text()
    content = results.read_results(path)
    assert text.endswith("}\n") and text.startswith('{\n  "name"')
    assert list(content) == list(results.KEYS) == list(json.loads(text))
    assert content["rows"] == ROW["rows"] and content["settings"] == ROW["settings"]
    assert datetime.now(UTC) - datetime.fromisoformat(content["date"]) < timedelta(minutes=5)
    assert set(content["hardware"]) == {"cpu", "cores", "memory_gib", "instruction_set", "gpu"}
    assert {"python", "torch", "numpy", "mixerkit"} <= set(content["versions"])


def test_what_is_measured_has_the_commit_and_the_date_of_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "describe_commit", lambda: "before")
    start = datetime.now(UTC) - timedelta(seconds=1)  # dates are of whole seconds
    with results.measuring():
        monkeypatch.setattr(results, "describe_commit", lambda: "after")
        time.sleep(1.1)
        before = datetime.now(UTC)
        results.write_results(tmp_path / "a.json", **ROW)
    results.write_results(tmp_path / "b.json", **ROW)
    one, other = (results.read_results(tmp_path / name) for name in ("a.json", "b.json"))
    assert (one["commit"], other["commit"]) == ("before", "after")
    assert start <= datetime.fromisoformat(one["date"]) < before - timedelta(seconds=1)
    assert datetime.fromisoformat(other["date"]) >= before - timedelta(seconds=1)


def test_versions_are_those_of_the_modules():
    import numpy
    import torch

    versions = results.describe_versions()
    assert torch.__version__.partition("+")[0] == versions["torch"].partition("+")[0]
    assert numpy.__version__ == versions["numpy"]
    assert sys.version.startswith(versions["python"])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("commit"),
        lambda content: content.update(extra=1),
        lambda content: content.update(rows=[]),
        lambda content: content.update(rows=[1]),
    ],
)
def test_another_schema_is_refused(tmp_path, change):
    path = tmp_path / "a.json"
    results.write_results(path, **ROW)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a\.json"):
        results.read_results(path)


def test_unreadable_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="No results file"):
        results.read_results(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"name": ')
    with pytest.raises(UserError, match="not readable"):
        results.read_results(tmp_path / "broken.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    results.write_results(path, **ROW)
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        results.write_results(path, **(ROW | {"rows": [{"seconds": float("nan")}]}))
    with pytest.raises(OSError, match="disk"):
        _write_to_a_full_disk(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def _write_to_a_full_disk(path):
    def fail(*_):
        raise OSError("disk full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results.os, "fsync", fail)
        results.write_results(path, **ROW)


def test_nothing_heavy_is_imported():
    code = "import sys, mixerkit.results; print({'torch', 'numpy', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_system_that_does_not_tell_its_memory(monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert results.describe_machine()["memory_gib"] == 0
