"""A folder with broken photographs: left out, named, counted, and too many stop the run."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixerkit.data import pixels
from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.recipe import Data, Evaluate, Save
from mixerkit.training.loop import train
from mixerkit.training.setup import check_classes, open_data, training_loader
from tests.training.runs import RECIPE, StopAt, assert_same_end

PER_CLASS = 30


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in train/ and test/; one training image of each and one test image are cut."""
    folder, draw = tmp_path / "photos", np.random.default_rng(0)
    for split in ("train", "test"):
        for name, low in (("dark", 0), ("light", 128)):
            (folder / split / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                shades = draw.integers(low, low + 128, (28, 28), np.uint8)
                Image.fromarray(shades).save(folder / split / name / f"{i:02}.png")
    for path in ("train/dark/07.png", "train/light/21.png", "test/dark/03.png"):
        os.truncate(folder / path, 300)
    return folder


def recipe(photos: Path, **data):
    return replace(
        RECIPE, data=Data(source=str(photos), **data), batch_size=10, duration="3 epochs",
        model=replace(RECIPE.model, num_classes=2), evaluate=Evaluate(batch_size=16),
        save=Save(every="4 steps"), not_finite=RECIPE.not_finite, compile="off",
    )  # fmt: skip


def quarantined(run: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    return [(row["split"], Path(row["file"]).name) for row in rows]


@pytest.mark.parametrize("workers", [1, 2])
def test_they_are_left_out_named_once_and_the_same_for_any_workers(photos, tmp_path, workers):
    straight, run = tmp_path / "straight", tmp_path / "run"
    settings = recipe(photos, holdout=10, max_unreadable=0.05, workers=workers)
    watch = StopAt(10**6, 0)
    result = train(settings, straight, watch=watch)
    assert result.test is not None and result.test.samples == 2 * PER_CLASS - 1
    names = quarantined(straight)
    assert sorted(name for _, name in names) == ["03.png", "07.png", "21.png"]
    assert names[-1] == ("photos test", "03.png")
    assert len([line for line in watch.lines if "left out: " in line]) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
        for attempt, stop in enumerate((3, 8, 99)):
            train(settings, run, resume=attempt > 0, watch=StopAt(stop, 15))
    assert_same_end(straight, run)
    assert quarantined(run) == names
    other = replace(settings, data=replace(settings.data, workers=3 - workers))
    train(other, tmp_path / "other")
    assert quarantined(tmp_path / "other") == names


def test_too_many_stop_the_run_which_is_saved(photos, tmp_path):
    for number in range(10):
        os.truncate(photos / f"train/dark/{number:02}.png", 300)
    settings = recipe(photos, holdout=10, max_unreadable=0.03)
    with pytest.raises(RunFailed, match=r"4 images .* allows 2 of 50"):
        train(settings, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert len(quarantined(tmp_path / "run")) == 4


def test_a_run_that_they_stopped_goes_on_once_they_are_replaced(photos, tmp_path):
    paths = [photos / f"train/dark/{number:02}.png" for number in range(10)]
    whole = {path: path.read_bytes() for path in paths}
    for path in paths:
        os.truncate(path, 300)
    settings = recipe(photos, holdout=10, max_unreadable=0.03)
    with pytest.raises(RunFailed):
        train(settings, tmp_path / "run")
    with pytest.raises(RunFailed, match="Replace them and resume"):
        train(settings, tmp_path / "run", resume=True)
    for path in paths[:9]:
        path.write_bytes(whole[path])
    assert train(settings, tmp_path / "run", resume=True).steps == 15


def test_a_batch_of_which_nothing_is_left_is_quarantined_before_the_run_stops(photos, tmp_path):
    for path in (photos / "train").rglob("*.png"):
        if path.name > "04":
            os.truncate(path, 300)
    with pytest.raises(RunFailed, match=r"None of the 2 images of a batch"):
        train(replace(recipe(photos, max_unreadable=0.9), batch_size=2), tmp_path / "run")
    assert len(quarantined(tmp_path / "run")) >= 2
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_the_error_says_what_is_saved(photos, tmp_path):
    for number in range(10):
        os.truncate(photos / f"train/dark/{number:02}.png", 300)
    run = tmp_path / "my run"
    with pytest.raises(RunFailed, match=r"start another run, without") as stopped:
        train(recipe(photos, holdout=10, max_unreadable=0.03), run)
    newest = max((run / "checkpoints").iterdir()).name
    assert str(stopped.value).endswith(f"Step {int(newest[5:])} is saved.")


def test_files_that_vanish_during_the_run_are_left_out(photos, tmp_path):
    settings = recipe(photos, holdout=10, max_unreadable=0.1, memory=0.0)
    victims = [photos / "train/dark/11.png", photos / "train/light/12.png"]

    class Vanish(StopAt):
        def progress(self, now):
            if now.step >= 2 and victims[0].exists():
                victims[0].unlink()
                victims[1].unlink()
                victims[1].symlink_to("nowhere")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
        assert train(settings, tmp_path / "run", watch=Vanish(0, 0)).steps == 15
    names = {name for _, name in quarantined(tmp_path / "run")}
    assert names - {"03.png", "07.png", "21.png"} == {"11.png", "12.png"}


def test_a_class_without_a_usable_image_is_refused_before_anything_is_written(photos, tmp_path):
    for path in (photos / "train" / "dark").iterdir():
        os.truncate(path, 300)
    settings = replace(recipe(photos, max_unreadable=0.9), batch_size=30)
    with pytest.raises(UserError, match=r"None of the 30 images of the class 'dark' .*00\.png"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_first_images_of_all_classes_are_read_side_by_side(photos, monkeypatch):
    """Of a class whose first is broken, also others, until one can be used."""
    together, names = threading.Barrier(2), []
    healthy = pixels.read

    def in_company(path, *arguments):
        names.append(f"{path.parent.name}/{path.name}")
        if len(names) <= 2:
            together.wait(20)
        return healthy(path, *arguments)

    monkeypatch.setattr(pixels, "read", in_company)
    os.truncate(photos / "train/light/00.png", 300)
    settings, splits = open_data(recipe(photos, holdout=0, workers=2))
    check_classes(training_loader(settings, splits))
    assert sorted(names) == ["dark/00.png", "light/00.png", "light/01.png"]


def test_a_class_that_loses_its_last_image_is_named(photos, tmp_path):
    """Also again when the run goes on."""
    for path in (photos / "test" / "light").iterdir():
        os.truncate(path, 300)
    watch, lost = StopAt(10**6, 0), "no image of the class 'light' in photos test can be used"
    settings = recipe(photos, holdout=10, max_unreadable=0.6)
    train(settings, tmp_path / "run", watch=watch)
    assert len([line for line in watch.lines if lost in line]) == 1


def test_images_that_were_replaced_are_told_and_others_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    settings = recipe(photos, holdout=10, max_unreadable=0.1)
    train(settings, tmp_path / "run", watch=StopAt(3, 15))
    watch = StopAt(6, 15)
    train(settings, tmp_path / "run", resume=True, watch=watch)
    assert not any("another content" in line for line in watch.lines)
    first, second = photos / "train/dark/01.png", photos / "train/light/01.png"
    first.write_bytes(second.read_bytes())
    watch = StopAt(9, 15)
    train(settings, tmp_path / "run", resume=True, watch=watch)
    assert any("1 of the 60 images that are compared have another" in line for line in watch.lines)
    first.rename(photos / "train/dark/0x.png")
    with pytest.raises(UserError, match="other images"):
        train(settings, tmp_path / "run", resume=True)


def test_none_allowed_stops_at_the_first(photos, tmp_path):
    with pytest.raises(UserError, match=r"0[7]|21"):
        train(recipe(photos, holdout=10, max_unreadable=0), tmp_path / "run")


def test_mistakes_show_the_images_that_were_measured(photos, tmp_path):
    train(recipe(photos, holdout=10, max_unreadable=0.05), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    names = sorted((photos / "test").rglob("*.png"))
    for row in found["mistakes"]:
        assert names[row["index"]].parent.name == row["true"]
        assert names[row["index"]].name != "03.png" or row["true"] != "dark"
