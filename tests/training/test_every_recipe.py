"""Every named recipe, at toy size, on images in the true format of its data: the whole way of a
run, stopped and gone on with."""

import signal
from dataclasses import fields, replace

import pytest

from mixerkit.spec.recipe import Init
from mixerkit.spec.recipes import RECIPES, recipe
from mixerkit.spec.shrink import shrunk
from mixerkit.training.loop import train
from tests.training.generated import with_data
from tests.training.runs import StopAt, assert_same_end


@pytest.mark.parametrize("name", RECIPES)
def test_only_the_size_and_length_are_changed(name):
    full = recipe(name)
    small = shrunk(full)
    assert (small.model.depth, small.model.width, small.batch_size) == (2, 64, 8)
    assert full.accumulation % small.accumulation == 0 and 8 % small.accumulation == 0
    back = replace(
        small,
        model=replace(small.model, depth=full.model.depth, width=full.model.width),
        schedule=replace(small.schedule, warmup=full.schedule.warmup),
        evaluate=full.evaluate,
        save=replace(small.save, every=full.save.every),
    )
    different = {
        each.name for each in fields(full) if getattr(back, each.name) != getattr(full, each.name)
    }
    assert different <= {"name", "init", "duration", "batch_size", "accumulation"}
    assert small.init == Init()


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_and_two_more_are_four(name, tmp_path):
    small = with_data(replace(shrunk(recipe(name)), threads=1), tmp_path)
    if small.data.holdout:  # one in a hundred would be none
        small = replace(small, data=replace(small.data, holdout=max(small.data.holdout, 0.1)))
    assert train(small, tmp_path / "four").steps == 4
    stopped = train(small, tmp_path / "two", watch=StopAt(2, signal.SIGTERM))
    assert (stopped.steps, stopped.interrupted) == (2, signal.SIGTERM)
    assert train(small, tmp_path / "two", resume=True).steps == 4
    assert_same_end(tmp_path / "four", tmp_path / "two")
