"""Tasks of your own: what a YAML file may say, and what each mistake is called."""

from pathlib import Path

import pytest

from mixerkit.errors import UserError
from mixerkit.study.transfer import choosing
from mixerkit.study.transfer_suite import average_5, batched, filled, read_suite, rehearsed


def suite_of(folder: Path, tasks: str):
    file = folder / "mine.yaml"
    file.write_text(f"name: mine\ntasks: {{{tasks}}}\n")
    return read_suite(file)


def test_what_is_not_said_is_as_in_the_paper_for_small_sets(tmp_path: Path) -> None:
    plain, told = suite_of(
        tmp_path,
        "a: {data: photos}, b: {data: pets, title: Cats, steps: 50, warmup: 3, batch_size: 96, "
        "rates: [0.1], held_out: 7}",
    ).tasks
    paper = next(task for task in average_5().tasks if task.name == "pets")
    assert (plain.recipe.duration, plain.recipe.schedule.warmup) == ("500 steps", "100 steps")
    assert (plain.recipe.batch_size, plain.recipe.data.holdout) == (512, 0.1)
    assert plain.recipe.optimizer == paper.recipe.optimizer and plain.rates == paper.rates
    assert (told.title, told.rates, told.recipe.schedule.warmup) == ("Cats", (0.1,), "3 steps")
    assert (told.recipe.batch_size, told.recipe.data.holdout) == (96, 7)
    assert plain.may_shrink and not told.may_shrink


def test_a_short_run_warms_up_for_a_fifth(tmp_path: Path) -> None:
    (short,) = suite_of(tmp_path, "a: {data: photos, steps: 50}").tasks
    assert short.recipe.schedule.warmup == "10 steps"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{}", "data is not given"),
        ("{data: x, held_out: 0}", "held_out must be above 0"),
        ("{data: x, held_out: -0.1}", "held_out must be above 0"),
        ("{data: x, held_out: 1.5}", "holdout must be a share below 1 or a whole number"),
        ("{data: x, rates: []}", "rates must be learning rates above 0, at least one"),
        ("{data: x, rates: [0.01, -0.01]}", "found [0.01, -0.01]"),
        ("{data: x, rates: [0.01, 0.01]}", "all different"),
        ("{data: x, rates: [0.01, 0.01000000001]}", "all different"),
        ("{data: x, steps: 0}", "steps must be a whole number of at least 1, found 0"),
        ("{data: x, batch_size: 0}", "batch_size must be a whole number of at least 1, found 0"),
        ("{data: x, warmup: -1}", "warmup must be a whole number of at least 0, found -1"),
        ("{data: x, warmup: soon}", "tasks.a.warmup must be a whole number, found 'soon'"),
        ("{data: x, steps: 50, warmup: 50}", "warmup must be shorter than the run of 50 steps"),
        ("{folder: x}", "Unknown setting 'tasks.a.folder'"),
        ("7", "must be a mapping of settings, found 7"),
    ],
)
def test_a_mistake_names_file_and_task(settings: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        suite_of(tmp_path, f"fine: {{data: y}}, a: {settings}")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: tasks.a: ")
    assert message in str(caught.value)


def test_tasks_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "a b: {data: x}, a-b: {data: y}")
    with pytest.raises(UserError, match=r"mine-choose: 2 configurations .* 'a b'.* 'a-b'"):
        choosing(suite).configurations()


def test_rates_of_either_sign_of_exponent_have_folders_of_their_own(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "a: {data: x, rates: [1.0e+30, 1.0e-30]}")
    names = [one.name for one in choosing(suite).configurations()]
    assert names == ["task=a,rate=1e+30", "task=a,rate=1e-30"]


def test_a_batch_keeps_the_micro_batches_of_the_recipe() -> None:
    recipe = average_5().tasks[0].recipe
    assert (recipe.batch_size, recipe.accumulation) == (512, 8)
    found = {size: batched(recipe, size).accumulation for size in (512, 256, 64, 32, 100)}
    assert found == {512: 8, 256: 4, 64: 1, 32: 1, 100: 1}


@pytest.mark.parametrize(
    ("images", "batch"), [(1, 1), (3, 2), (32, 32), (511, 256), (512, 512), (9_999, 512)]
)
def test_a_batch_is_as_large_as_the_images_allow(images: int, batch: int, tmp_path: Path) -> None:
    (own,) = suite_of(tmp_path, "a: {data: photos}").tasks
    assert filled(own, images).recipe.batch_size == batch
    (own,) = suite_of(tmp_path, "a: {data: photos, batch_size: 512}").tasks
    assert filled(own, images) == own
    assert filled(average_5().tasks[0], images) == average_5().tasks[0]


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 0), (4, 0), (5, 1), (20, 4)])
def test_a_rehearsal_of_any_length_has_a_shorter_warmup(steps: int, warmup: int) -> None:
    recipe = rehearsed(average_5().tasks[0].recipe, steps)
    assert (recipe.duration, recipe.schedule.warmup) == (f"{steps} steps", f"{warmup} steps")
