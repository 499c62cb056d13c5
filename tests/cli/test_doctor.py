import json
from pathlib import Path

import pytest

from mixerkit import results
from mixerkit.cli import doctor
from mixerkit.data import fashion_mnist

IMAGES = "train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def bare(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Fashion-MNIST, whatever this one has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", here / "system")
    doctor._machine.cache_clear()


def test_doctor_says_what_is_here(mixer, here, monkeypatch):
    asked = []
    describe = results.describe_machine
    monkeypatch.setattr(
        results, "describe_machine", lambda: asked.append(1) or describe() | {"gpu": "Big One"}
    )
    code, out, err = mixer("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and set(found) == set(doctor.CHECKS)
    assert found["threads"] >= 1 and "torch" in found["versions"]
    assert found["gpu"] == "Big One" and len(asked) == 1
    assert f"- {here / 'cache'}" in found["fashion_mnist"]
    assert mixer("doctor")[0] == 0


def test_every_place_is_named_and_the_network_is_left_alone(mixer, here, monkeypatch):
    monkeypatch.setenv("MIXERKIT_DATA", "relative")
    monkeypatch.delenv("MIXERKIT_OFFLINE")
    found = json.loads(mixer("doctor", "--json")[1])["fashion_mnist"]
    places = ["relative", str(here / "system"), str(here / "cache")]
    lines = found.splitlines()
    assert all(
        line.startswith(f"  - {place}") for line, place in zip(lines[1:], places, strict=True)
    )
    assert lines[0].startswith("not here") and "demo` downloads it" in lines[0]


def test_half_a_set_is_said_to_be_half(mixer, here, monkeypatch):
    monkeypatch.setenv("MIXERKIT_DATA", str(here / "data"))
    (here / "data").mkdir()
    (here / "data" / IMAGES).write_bytes(b"")
    found = json.loads(mixer("doctor", "--json")[1])["fashion_mnist"]
    assert "has only some files" in found and "not here" not in found


def test_a_broken_part_does_not_hide_the_others(mixer, monkeypatch):
    def broken():
        raise RuntimeError("driver too old")

    monkeypatch.setitem(doctor.CHECKS, "devices", broken)
    code, out, _ = mixer("doctor")
    assert code == 0 and "not found: driver too old" in out and "python" in out


def test_how_to_get_reports_is_said(mixer, monkeypatch):
    monkeypatch.setitem(doctor.sys.modules, "matplotlib", None)
    found = json.loads(mixer("doctor", "--json")[1])["pictures"]
    assert found.startswith("no report") and "-m pip install matplotlib" in found
