"""Photographs, a recipe and a trained run, all tiny, for the commands to work on."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixerkit.cli.main import main
from tests.cli.tiny import RECIPE, make_photos


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder of its own, and looks for nothing on the network."""
    for name in ("MIXERKIT_DATA", "MIXERKIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    """Two classes, "dark" and "light", in ./photos."""
    make_photos(here / "photos")
    return here / "photos"


@pytest.fixture
def tiny(photos: Path, here: Path) -> Path:
    """A recipe for ./photos."""
    path = here / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def mixer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe, with its report; read only."""
    folder = tmp_path_factory.mktemp("trained")
    make_photos(folder / "photos")
    text = RECIPE.replace("source: photos", f"source: {folder / 'photos'}")
    (folder / "tiny.yaml").write_text(text)
    code = main(["train", str(folder / "tiny.yaml"), "--out", str(folder / "run")])
    assert code == 0
    return folder / "run"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes packages away."""
    whole = importlib.util.find_spec

    def take(*packages: str) -> None:
        def found(name: str, package: str | None = None) -> Any:
            return None if name in packages else whole(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", found)

    return take
