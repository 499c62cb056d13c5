"""Where the samples are, and an environment in which no data set is found by chance."""

from pathlib import Path

import pytest

from mixerkit.data import fashion_mnist


@pytest.fixture
def samples(repository: Path) -> Path:
    """The folder with real images in the true formats."""
    return repository / "tests" / "samples"


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder, no system folder, an empty cache, and offline until a test changes it."""
    monkeypatch.delenv("MIXERKIT_DATA", raising=False)
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
