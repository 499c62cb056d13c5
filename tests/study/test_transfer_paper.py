"""The paper's figures stand beside ours only where the same was done; a note says what was not."""

from dataclasses import replace

import pytest

from mixerkit.study.transfer_paper import NOTHING, published, published_for
from mixerkit.study.transfer_suite import Suite, average_5, batched, rehearsed

B16 = "zoo:b16-imagenet21k-google"
L16 = "zoo:l16-imagenet21k-google"


def suite(size: int = 224, only: str = "") -> Suite:
    tasks = []
    for task in average_5().tasks:
        model = replace(task.recipe.model, image_size=size)
        tasks.append(replace(task, recipe=replace(task.recipe, model=model)))
    return Suite("avg5", "Avg 5", tuple(t for t in tasks if only in t.name))


def test_rows_of_table_3() -> None:
    row = published_for(B16, 224)
    assert row is not None and (row.imagenet, row.average5) == (80.64, 92.50)
    assert published_for(B16, 448) is None
    assert published_for("zoo:fashion-demo", 28) is None


def test_the_same_fine_tuning_is_compared() -> None:
    found = published(B16, suite())
    assert (found.figures, found.note) == ({"imagenet": 80.64, "average": 92.50}, "")
    assert published(L16, suite(448)).figures == {"imagenet": 83.91, "average": 93.86}
    assert published(B16, suite(only="imagenet")).figures == {"imagenet": 80.64}
    assert published("zoo:fashion-demo", suite()) == NOTHING


@pytest.mark.parametrize(
    ("model", "given", "note"),
    [
        (B16, suite(448), "no figures of Mixer-B/16 fine-tuned at 448 px"),
        (B16, suite(only="pets"), "ImageNet and the average of all five alone"),
    ],
)
def test_what_the_paper_does_not_have_is_said(model: str, given: Suite, note: str) -> None:
    found = published(model, given)
    assert not found.figures and note in found.note


def test_a_rehearsal_is_not_compared() -> None:
    whole = suite()
    for change in (lambda recipe: rehearsed(recipe, 20), lambda recipe: batched(recipe, 256)):
        tasks = tuple(replace(task, recipe=change(task.recipe)) for task in whole.tasks)
        found = published(B16, replace(whole, tasks=tasks))
        assert not found.figures and "steps or batches are others" in found.note
    same = tuple(replace(task, recipe=batched(task.recipe, 512)) for task in whole.tasks)
    assert published(B16, replace(whole, tasks=same)).figures


def test_models_of_imagenet_1k_are_compared_with_training_from_scratch() -> None:
    found = published("zoo:b16-imagenet1k-google", suite())
    assert found.figures == {"imagenet": 76.44, "average": 88.33}
    assert "from scratch" in found.note
