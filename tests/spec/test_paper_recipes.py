"""The paper's recipes against the numbers as they were published, written down once more here."""

from dataclasses import replace

import pytest

from mixerkit.errors import UserError
from mixerkit.spec import fine_tuning
from mixerkit.spec.beside_paper import NOTES, beside_paper
from mixerkit.spec.paper_recipes import PAPER_RECIPES
from mixerkit.spec.recipes import recipe

# Table 4: epochs, learning rate, weight decay, RandAugment, mixup, stochastic depth.
TABLE_4 = {
    "b16-imagenet1k": ("300 epochs", 0.001, 0.1, 15, 0.5, 0.1),
    "l16-imagenet1k": ("300 epochs", 0.001, 0.1, 15, 0.5, 0.1),
    "b16-imagenet21k": ("300 epochs", 0.001, 0.1, 10, 0.2, 0.1),
    "l16-imagenet21k": ("300 epochs", 0.001, 0.1, 20, 0.5, 0.1),
    "s32-jft": ("5 epochs", 0.003, 0.03, 0, 0, 0),
    "s16-jft": ("5 epochs", 0.003, 0.03, 0, 0, 0),
    "b32-jft": ("7 epochs", 0.003, 0.03, 0, 0, 0),
    "b16-jft": ("7 epochs", 0.003, 0.03, 0, 0, 0),
    "l32-jft": ("14 epochs", 0.001, 0.03, 0, 0, 0),
    "l16-jft": ("14 epochs", 0.001, 0.03, 0, 0, 0),
    "h14-jft": ("14 epochs", 0.001, 0.03, 0, 0, 0),
}


def test_every_row_of_table_4_is_a_recipe():
    assert list(PAPER_RECIPES) == list(TABLE_4)


@pytest.mark.parametrize("name", TABLE_4)
def test_settings_are_those_of_table_4(name):
    found = recipe(name)
    assert found.name == name
    assert (
        *(found.duration, found.optimizer.lr, found.optimizer.weight_decay),
        *(found.augment.randaugment, found.augment.mixup, found.model.drop_path),
    ) == TABLE_4[name]
    assert (found.batch_size, found.schedule.warmup, found.schedule.decay) == (
        *(4096, "10000 steps", "linear"),
    )
    assert (found.optimizer.name, found.optimizer.betas, found.optimizer.clip) == (
        *("adamw", (0.9, 0.999), 1.0),
    )
    assert found.model.image_size == 224 and found.model.dropout == 0


def test_the_head_of_imagenet_1k_begins_at_the_published_bias():
    assert recipe("b16-imagenet1k").model.head_bias == -6.9
    assert recipe("l16-imagenet21k").model.head_bias == -10.0


# Fine-tuning: steps, warm-up, share held out for choosing the rate, classes.
TASKS = {
    "finetune-imagenet": ("20000 steps", "500 steps", 0.01, 1000),
    "finetune-cifar10": ("10000 steps", "500 steps", 0.02, 10),
    "finetune-cifar100": ("10000 steps", "500 steps", 0.02, 100),
    "finetune-pets": ("500 steps", "100 steps", 0.1, 37),
    "finetune-flowers102": ("500 steps", "100 steps", 0.1, 102),
}


@pytest.mark.parametrize("name", TASKS)
def test_fine_tuning_is_as_published(name):
    found = recipe(name)
    assert found.name == name
    assert (
        *(found.duration, found.schedule.warmup, found.data.holdout, found.model.num_classes),
    ) == TASKS[name]
    optimizer = found.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay, optimizer.clip) == (
        *("sgd", 0.9, 0.0, 1.0),
    )
    assert optimizer.lr in (0.003, 0.01, 0.03, 0.06)
    assert (found.batch_size, found.schedule.decay, found.model.image_size) == (512, "cosine", 224)
    assert (found.init.source, found.init.head) == ("zoo:b16-imagenet21k-google", "fresh")


def test_every_task_with_images_of_its_own_is_a_recipe():
    assert list(fine_tuning.PAPER_RECIPES) == list(TASKS)


@pytest.mark.parametrize("name", [*TABLE_4, *TASKS])
def test_no_difference_is_unexplained(name):
    rows = beside_paper(recipe(name))
    assert len(rows) > 14 and len({row.setting for row in rows}) == len(rows)
    different = {row.setting for row in rows if not row.same}
    may_differ = {"optimizer.lr"} if name in TASKS else {"augment.mix_group", "duration"}
    assert different <= may_differ
    assert all(row.note == NOTES[row.setting] for row in rows if not row.same)


def test_a_changed_setting_is_shown_without_a_reason():
    changed = replace(recipe("b16-imagenet1k"), batch_size=512)
    row = next(row for row in beside_paper(changed) if row.setting == "batch_size")
    assert (row.published, row.ours, row.same, row.note) == (4096, 512, False, "")
    with pytest.raises(UserError, match="no recipe 'fashion-demo'"):
        beside_paper(recipe("fashion-demo"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "b16-imagenet1k",
            ("--data.root FOLDER`", "300 epochs", "took 10 TPUv3 core-days", "76.44 %"),
        ),
        ("l16-imagenet21k", ("--data.source FOLDER`", "took 410 TPUv3 core-days", "82.89 %")),
        ("l16-jft", ("14 epochs of JFT-300M took 450 TPUv3 core-days", "84.82 %")),
        ("l32-jft", ("7 epochs of JFT-300M took 120 TPUv3 core-days", "80.67 %")),
        ("h14-jft", ("took 1010 TPUv3 core-days", "86.32 %")),
    ],
)
def test_a_recipe_gives_its_command_and_says_whose_the_result_is(name, parts):
    said = PAPER_RECIPES[name].__doc__ or ""
    assert f"`mixer train {name} " in said and "There is no result of ours." in said
    assert all(part in said for part in parts)
