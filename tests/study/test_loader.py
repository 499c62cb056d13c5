"""The loader's bench: its photographs, its rows, and that what it compares is alike."""

import gc
import json
import warnings

import numpy as np
import pytest

from mixerkit.data.decode import open_image
from mixerkit.study import loader
from mixerkit.study.loader import make_photographs, our_loader, pixel_difference


def test_photographs_are_jpegs_of_the_size_and_the_same_every_time(tmp_path):
    means = [make_photographs(tmp_path / name, 8, (500, 375)) for name in ("one", "other")]
    files = sorted((tmp_path / "one").rglob("*.jpg"))
    assert len(files) == 8 and means[0] == means[1] > 20_000
    for path in files:
        other = tmp_path / "other" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()
    sizes = [open_image(path).size for path in sorted(files, key=lambda path: path.name)]
    assert sizes == [(375, 500), *[(500, 375)] * 3] * 2


@pytest.fixture
def timm_leaves_files_open():
    """Its data sets close no image; what they forget is collected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("timm_leaves_files_open")
def test_rows_of_a_quick_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "QUICK_COUNT", 24)
    monkeypatch.setattr(loader, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(loader, "BATCH", 8)
    monkeypatch.setattr(loader, "SIZES", {"small": (320, 240), "large": (960, 720)})
    monkeypatch.setattr(loader, "TRAINING_STEPS", 4)
    monkeypatch.setattr(loader, "TRAINING_BATCH", 4)
    lines: list[str] = []
    rows = loader.study(tmp_path / "loader.json", lines.append, quick=True)
    assert [(row["files"], row["loader"]) for row in rows] == [
        (size, name)
        for size in ("small", "large")
        for name in ("timm", "mixerkit", "mixerkit, scaled decoding")
    ]
    assert all(row["images_per_processor_second"] > 0 for row in rows)
    assert rows[0]["speedup_over_timm"] == 1
    small, large = rows[2]["mean_difference"], rows[5]["mean_difference"]
    assert 0 < large < 5 and small < 5
    stored = json.loads((tmp_path / "loader.json").read_text())
    assert 0 <= stored["settings"]["waiting_share_of_S16"] < 1


@pytest.mark.usefixtures("timm_leaves_files_open")
def test_ours_and_timms_batches_are_of_one_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "BATCH", 4)
    make_photographs(tmp_path, 8, (320, 240))
    for take in (loader._ours(tmp_path, 1), loader._timms(tmp_path, 0)):
        take()  # asserts the size of each batch
    batch = next(iter(our_loader(tmp_path, 1).epoch(0))).images.numpy()
    assert batch.shape == (4, 3, 224, 224) and batch.dtype == np.float32
    assert -1 <= batch.min() < 0 < batch.max() <= 1
    assert pixel_difference(tmp_path)["difference_99_percent"] < 40
