"""Durations, and settings that contradict themselves."""

import re
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import pytest

from mixerkit.errors import UserError
from mixerkit.spec.recipe import (
    Augment,
    Data,
    Duration,
    Evaluate,
    Loss,
    Optimizer,
    Recipe,
    Save,
    Schedule,
    parse_duration,
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("10 epochs", Duration(10, "epoch")),
        ("1 epoch", Duration(1, "epoch")),
        (" 5000steps ", Duration(5000, "step")),
        ("0.5 Epochs", Duration(0.5, "epoch")),
        ("2000000 samples", Duration(2e6, "sample")),
    ],
)
def test_durations_are_an_amount_and_a_unit(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "epochs",
        "-1 epochs",
        "10 hours",
        "10 %",
        "1e3 steps",
        "5 stepss",
        "0 epochs",
        "0.0 steps",
        "9" * 400 + " steps",
        "ten epochs",
        "1 2 steps",
    ],
)
def test_other_durations_are_refused(text):
    with pytest.raises(UserError):
        parse_duration(text)


def test_a_share_of_the_run_is_for_warm_ups_only():
    assert parse_duration("10 %", share_allowed=True) == Duration(10, "%")
    assert parse_duration("0 steps", share_allowed=True) == Duration(0, "step")
    with pytest.raises(UserError):
        parse_duration("101 %", share_allowed=True)


@pytest.mark.parametrize(
    "text, steps",
    [
        ("1 epoch", 7),  # 1000 samples in batches of 128: the last, partial one is dropped
        ("3 epochs", 21),
        ("0.5 epochs", 4),
        ("12 steps", 12),
        ("1024 samples", 8),
        ("1025 samples", 9),
        ("25 %", 10),
        ("0 %", 0),
    ],
)
def test_durations_in_steps(text, steps):
    assert parse_duration(text, share_allowed=True).steps(1000, 128, total=40) == steps


def test_parts_of_an_epoch_do_not_gain_a_step_by_rounding():
    assert Duration(0.07, "epoch").steps(1000, 10) == 7  # 0.07 · 100 is 7.000000000000001


WRONG = {
    "holdout": lambda: Data(holdout=1.5),
    "negative holdout": lambda: Data(holdout=-1),
    "workers": lambda: Data(workers=-1),
    "mix_probability": lambda: Augment(mix_probability=1.1),
    "shift": lambda: Augment(shift=-1),
    "crop_area": lambda: Augment(crop_area=(0.5, 0.1)),
    "lr": lambda: Optimizer(lr=0),
    "weight_decay": lambda: Optimizer(weight_decay=-0.1),
    "betas": lambda: Optimizer(betas=(0.9, 1.0)),
    "warmup": lambda: Schedule(warmup="soon"),
    "final": lambda: Schedule(final=2),
    "label_smoothing": lambda: Loss(label_smoothing=1),
    "evaluate every": lambda: Evaluate(every="0 steps"),
    "evaluate batch_size": lambda: Evaluate(batch_size=0),
    "keep": lambda: Save(keep=1),
    "duration": lambda: Recipe(duration="0 epochs"),
    "accumulation": lambda: Recipe(batch_size=128, accumulation=3),
    "ema": lambda: Recipe(ema=1.0),
    "threads": lambda: Recipe(threads=-2),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_settings_are_refused(name):
    with pytest.raises(UserError):
        WRONG[name]()


def numbers_in(record: Any, where: str = "") -> list[tuple[Any, str, str]]:
    """(record, field, name of the setting) of all floats, also those in tuples, below `record`."""
    found = []
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            found += numbers_in(value, f"{field.name}.")
        elif isinstance(value, float) or (
            isinstance(value, tuple) and value and type(value[0]) is float
        ):
            found.append((record, field.name, f"{where}{field.name}"))
    return found


NUMBERS = numbers_in(Recipe())


def test_the_numbers_of_a_recipe_are_found():
    assert {"ema", "optimizer.betas", "optimizer.lr", "data.mean"} <= {name for *_, name in NUMBERS}
    assert len(NUMBERS) > 20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("record, field, name", NUMBERS, ids=[name for *_, name in NUMBERS])
def test_no_number_is_nan_or_infinite(record, field, name, value):
    before = asdict(record)[field]
    wrong = (*before[:-1], value) if isinstance(before, tuple) else value
    known = name.removeprefix("model.")  # a model is no part of a recipe alone
    with pytest.raises(UserError, match=re.escape(known) + " must be"):
        replace(record, **{field: wrong})
