"""What cannot be trained is found before anything is: of all tasks, all at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import variant
from mixerkit.study.runner import StudyFolder, Work
from mixerkit.study.transfer import best_rates, choosing, final, table_of
from mixerkit.study.transfer_plan import planned
from mixerkit.study.transfer_suite import Suite, read_suite
from tests.miniature.pictures import write_class_folders

TINY = variant(
    "N/7", in_channels=3, num_classes=2, width=16, depth=1, token_width=8, channel_width=16
)


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """36 images for training, of three classes, and 6 for the test."""
    write_class_folders(tmp_path / "photos" / "train", 3, 12, 32, 0)
    write_class_folders(tmp_path / "photos" / "val", 3, 2, 32, 1)
    return tmp_path / "photos"


def suite_of(photos: Path, *settings: str) -> Suite:
    """Tasks a, b, … on the same images, of a model that is trained from random weights."""
    file = photos.parent / "mine.yaml"
    tasks = (f"{'abc'[i]}: {{data: {photos}, {one}}}" for i, one in enumerate(settings))
    file.write_text(f"tasks: {{{', '.join(tasks)}}}\n")
    suite = read_suite(file)
    made = []
    for task in suite.tasks:
        data = replace(task.recipe.data, resize_to=28)
        recipe = replace(task.recipe, model=TINY, init=type(task.recipe.init)(), data=data)
        made.append(replace(task, recipe=replace(recipe, precision="float32", compile="off")))
    return replace(suite, tasks=tuple(made))


def test_a_small_folder_gets_a_batch_that_fits_and_trains(photos: Path, tmp_path: Path) -> None:
    suite = suite_of(photos, "steps: 3, rates: [0.01, 0.03]")
    (plan,) = planned(suite)
    assert (plan.images, plan.held_out, plan.test_images) == (36, 4, 6)
    assert (plan.task.recipe.batch_size, plan.steps, plan.trials) == (32, 3, 3)
    assert plan.macs == 3 * cost(replace(TINY, num_classes=3)).macs * 3 * 32 * 3
    assert "batches of 32 images, because the 32" in plan.note and "do not fill 512" in plan.note
    assert "or --batch-size, sets another" in plan.note
    suite = replace(suite, tasks=(plan.task,))
    choose = StudyFolder(choosing(suite), tmp_path / "choose")
    Work(choose, silent).do()
    last = StudyFolder(final(suite, best_rates(suite, choose)), tmp_path / "final")
    Work(last, silent).do()
    row, average = table_of(suite, choose, last)
    assert not row["error"] and average["test_accuracy"] == row["test_accuracy"]


def test_a_batch_that_was_given_is_not_changed(photos: Path) -> None:
    (plan,) = planned(suite_of(photos, "steps: 3, batch_size: 16"))
    assert plan.task.recipe.batch_size == 16 and not plan.note


def test_all_that_cannot_train_is_said_at_once(photos: Path, tmp_path: Path) -> None:
    suite = suite_of(photos, "steps: 3", "steps: 3, batch_size: 33", "steps: 50, held_out: 36")
    fine, large, other = suite.tasks
    late = replace(large.recipe.schedule, warmup="3 steps")
    large = replace(large, recipe=replace(large.recipe, schedule=late))
    with pytest.raises(UserError) as caught:
        planned(replace(suite, tasks=(fine, large, other)))
    first, *lines = str(caught.value).splitlines()
    assert first == "Nothing was started."
    assert [line.split(":")[0] for line in lines] == ["b", "b", "c"]
    assert "batch_size 33 is larger than the 32 images" in lines[0]
    assert "warmup of 3 steps must be shorter than the run of 3" in lines[1]
    assert "held_out 36 would take 36 of the 36 images" in lines[2]


def test_images_to_compare_rates_on_and_to_test_are_needed(photos: Path) -> None:
    (task,) = suite_of(photos, "steps: 3").tasks
    nothing_held_out = replace(task.recipe.data, holdout=0.0, source=str(photos / "train"))
    task = replace(task, recipe=replace(task.recipe, data=nothing_held_out))
    with pytest.raises(UserError, match=r"there is no test split(.|\n)*is held out"):
        planned(Suite("x", "x", (task,)))


def test_a_class_that_cannot_be_learned_is_found_before(photos: Path) -> None:
    for path in (photos / "train" / "c1").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"None of the 1. images of the class 'c1'"):
        planned(suite_of(photos, "steps: 3"))
