"""The surgery study on the sample images: what it trains, what its rows say, what it draws."""

import io

import pytest
from PIL import Image

from mixerkit.results import read_results
from mixerkit.spec.mixer import variant
from mixerkit.study import surgery
from mixerkit.study.surgery import CASES, Case, figure, native, rows_of, study


@pytest.fixture
def small(monkeypatch, repository):
    monkeypatch.setenv("MIXERKIT_DATA", str(repository / "tests" / "samples"))
    monkeypatch.setattr(surgery, "HOLDOUT", 100)
    tiny = dict(patch_size=4, width=8, depth=1, token_width=4, channel_width=8)
    monkeypatch.setattr(surgery, "NATIVE", tiny)


def test_quick_study_writes_rows_and_a_picture(small, tmp_path):
    said: list[str] = []
    rows = study(tmp_path / "surgery.json", said.append, quick=True)
    assert read_results(tmp_path / "surgery.json")["rows"] == rows
    assert [row["way"] for row in rows] == ["native", "bilinear", "bicubic", "area", "pinv"]
    assert {row["tokens"] for row in rows[1:]} == {45} and rows[0]["tokens"] == 49
    assert Image.open(io.BytesIO((tmp_path / "surgery.png").read_bytes())).width > 300


def test_every_way_and_a_fresh_model_are_trained_equally_long(small, tmp_path):
    source, base, *_ = native(tmp_path, 1, lambda _: None)
    rows = rows_of(Case("56 px", {"image_size": 56}, True), source, base, tmp_path, (1,), print)
    assert [(row["way"], row["epochs"]) for row in rows] == [
        (way, epochs)
        for way in ("shared", "dense", "bilinear", "bicubic", "area", "pinv")
        for epochs in (0, 1)
    ] + [("from scratch", 1)]
    shared, dense = rows[0], rows[2]
    assert shared["held_out_accuracy"] == dense["held_out_accuracy"]
    assert shared["parameters"] < dense["parameters"]
    in_an_epoch = 500 // base.batch_size  # of the 600 sample images 100 are held out
    assert all(row["steps"] == row["epochs"] * in_an_epoch for row in rows)
    assert figure(rows)


def test_the_cases_are_those_of_the_question():
    config = variant("N/4", **surgery.NATIVE)
    assert config.image_hw == (28, 28) and config.patch_hw == (4, 4)
    assert [case.changes for case in CASES] == [
        {"image_size": 56},
        {"image_size": 44},
        {"image_size": (20, 36)},
        {"patch_size": 2},
        {"patch_size": 7},
    ]
