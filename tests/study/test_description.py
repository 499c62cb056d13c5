"""What two descriptions of a study differ in, and which can share a folder."""

from dataclasses import replace

from mixerkit.spec.recipes import recipe
from mixerkit.study.description import described, difference, goes_with, understood
from mixerkit.study.grid import Configuration


def study(*names: str, name: str = "x", **changes) -> dict:
    settings = replace(recipe("fashion-demo"), **changes)
    listed = {one: described(Configuration({"task": one}, settings)) for one in names}
    return understood({"name": name, "weights": "", "configurations": listed})


def test_settings_are_named_with_both_values_each_once() -> None:
    base = recipe("fashion-demo")
    changed = study("a", "b", duration="7 steps", data=replace(base.data, classes=("bag", "coat")))
    text = difference(study("a", "b"), changed)
    assert text.count("duration") == 1
    assert f"duration is '{base.duration}' there and '7 steps' now" in text
    assert "data.classes is nothing there and 'bag', 'coat' now" in text


def test_other_configurations_and_other_names_are_said() -> None:
    assert difference(study("a", "b"), study("b", "c")) == "only there: a; only now: c"
    assert difference(study("a"), study("a", name="y")) == "it is 'x' there and 'y' now"
    assert difference({"name": "x", "configurations": 7}, study("a")) == "it cannot be understood"


def test_parts_go_with_the_whole_unless_they_mean_something_else() -> None:
    whole = study("a", "b")
    for part in (study("a"), study("b"), study("c"), study("b", "c"), whole):
        assert goes_with(whole, part) and goes_with(part, whole)
    assert not goes_with(whole, study("b", batch_size=7))
    assert not goes_with(whole, study("a", name="y"))
    assert not goes_with(whole, study("a") | {"weights": "others"})
    assert not goes_with({"name": "x", "weights": ""}, whole)
