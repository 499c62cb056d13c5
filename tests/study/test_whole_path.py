"""The bench of the whole path: its photographs, its parts, its rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixerkit.data.decode import open_image
from mixerkit.data.sources import open_source
from mixerkit.results import read_results
from mixerkit.study import whole_path
from mixerkit.study.photographs import PACKAGES, imagenet_of


def pictures(count: int = 3) -> Iterator[tuple[str, Image.Image]]:
    """Noise in the place of photographs, which are fetched."""
    draws = np.random.default_rng(0)
    for number in range(count):
        pixels = draws.integers(0, 256, (480, 640 + number, 3), np.uint8)
        yield f"{number}.jpg", Image.fromarray(pixels)


def test_photographs_are_in_imagenets_form_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        imagenet_of(tmp_path / name, pictures(), per_class=2)
    splits = open_source("imagenet", str(tmp_path / "one"))
    assert splits.test and splits.test.paths
    assert splits.train.class_names == ("tench", "goldfish", "great white shark")
    assert len(splits.train) == len(splits.test) == 6
    files = sorted((tmp_path / "one").rglob("*.JPEG"))
    assert {open_image(path).size for path in files} == {(500, 375)}
    contents = {path.read_bytes() for path in files}
    assert len(contents) == 12  # no two parts alike
    for path in files:
        other = tmp_path / "other" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_enough_photographs_are_named() -> None:
    names = [name for some in PACKAGES.values() for name in some]
    images = 2 * whole_path.PER_CLASS * len(names)
    assert len(set(names)) == len(names) and images >= 300


@pytest.mark.slow
def test_rows_of_a_quick_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial is a process of its own, with the bench's own small batches."""
    monkeypatch.setattr(whole_path, "photographs", lambda: pictures(8))
    said: list[str] = []
    rows = whole_path.study(tmp_path / "a.json", said.append, quick=True)
    content = read_results(tmp_path / "a.json")
    assert content["rows"] == rows
    assert content["settings"]["images_of_each_split"] == 16
    assert [row["part"] for row in rows] == list(whole_path.PARTS)
    assert [row["images"] for row in rows[:2]] == [16, 16]
    for row in rows:
        assert row["images_per_second"] > 0
        assert 0 < row["decoding_share"] < 1
        assert row["peak_growth_gib"] > 0
    assert rows[1]["waiting"] is None and 0 <= rows[0]["waiting"] < 1
