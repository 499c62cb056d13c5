"""Classes of images and of a model are matched by name; what differs is said."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mixerkit.checkpoint.load import load, save_model
from mixerkit.cli.classes import as_the_model_knows
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess
from tests.cli.tiny import make_photos


def split_of(*names: str) -> ImageSplit:
    """Two images of each class."""
    labels = np.repeat(np.arange(len(names)), 2)
    return ImageSplit("folder", names, labels, np.zeros((len(labels), 4, 4, 1), np.uint8))


def known_as(*names: str) -> Preprocess:
    return Preprocess(image_size=4, channels=1, class_names=names)


def named(split: ImageSplit) -> list[str]:
    return [split.class_names[label] for label in split.labels]


def test_another_order_is_matched_by_name(capsys):
    before = split_of("bag", "coat", "dress")
    found = as_the_model_knows(known_as("dress", "bag", "coat"), before)
    assert found.class_names == ("dress", "bag", "coat") and named(found) == named(before)
    assert capsys.readouterr().err.count("in another order, and are matched by name") == 1
    assert named(as_the_model_knows(known_as("bag", "coat", "dress"), before)) == named(before)
    assert capsys.readouterr().err == ""


def test_chosen_classes_keep_the_models_numbers(capsys):
    known = known_as("dress", "bag", "coat")
    found = as_the_model_knows(known, split_of("coat", "dress"), chosen=True)
    assert found.labels.tolist() == [2, 2, 0, 0] and capsys.readouterr().err == ""
    with pytest.raises(UserError, match="Missing in the data: bag"):
        as_the_model_knows(known, split_of("coat", "dress"))


def test_a_folder_has_a_dash_for_a_slash(capsys):
    known = known_as("T-shirt/top", "a-b", "bag")
    found = as_the_model_knows(known, split_of("T-shirt-top", "a-b", "bag"))
    assert found.class_names == known.class_names and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert capsys.readouterr().err == (
        "note: folders cannot have a / in their names: T-shirt-top for T-shirt/top.\n"
    )
    both = known_as("a/b", "a-b")
    assert named(as_the_model_knows(both, split_of("a-b", "a/b"))) == ["a-b", "a-b", "a/b", "a/b"]


def test_another_set_is_named_with_what_is_near():
    with pytest.raises(UserError) as caught:
        as_the_model_knows(known_as("trouser", "bag"), split_of("bag", "trousers"))
    message = str(caught.value)
    assert "must be the same, in any order" in message
    assert "Unknown to the model: trousers (did you mean 'trouser'?)." in message
    assert message.endswith(" To measure those that both have:\n  --data.classes bag")
    with pytest.raises(UserError, match="have one name"):
        as_the_model_knows(known_as("crane", "crane", "bag"), split_of("bag", "crane"))


def test_every_misspelt_class_is_named_with_what_is_near():
    """Each of the model's classes is meant once; a name like none gets no advice."""
    known = known_as("T-shirt/top", "Ankle boot", "Bag", "Coat")
    with pytest.raises(UserError) as caught:
        as_the_model_knows(known, split_of("Ankle boots", "Bagg", "Bags", "xyz", "Coat"))
    assert (
        "Unknown to the model: Ankle boots (did you mean 'Ankle boot'?), "
        "Bagg (did you mean 'Bag'?), Bags, xyz. Missing in the data: T-shirt/top, Ankle boot, Bag."
    ) in str(caught.value)


def test_a_misspelt_folder_is_told_a_name_that_it_can_have(mixer, trained, here):
    model = load(trained)
    known = replace(model.preprocess, class_names=("T-shirt/top", "Ankle boot"))
    save_model(here / "shop", model, known, model.about)
    make_photos(here / "more", classes=("T-shirt or top", "Ankle boot"))
    code, out, err = mixer("evaluate", "shop", "--on", "more")
    assert code == 2 and out == ""
    assert "(if T-shirt/top is meant, rename the folder to T-shirt-top)" in err
    assert "\n  --data.classes 'Ankle boot'\n" in err
    assert mixer("evaluate", "shop", "--on", "more", "--data.classes", "Ankle boot")[0] == 0
    (here / "more" / "T-shirt or top").rename(here / "more" / "T-shirt-top")
    assert mixer("evaluate", "shop", "--on", "more")[0] == 0


def test_a_line_that_is_too_long_to_copy_is_not_printed():
    names = tuple(f"class number {i}" for i in range(200))
    with pytest.raises(UserError, match=r"--data\.classes with the 199 that both have") as caught:
        as_the_model_knows(known_as(*names), split_of(*names[1:]))
    assert "class number 150" not in str(caught.value)


@pytest.fixture
def turned(trained, here):
    """A model like the trained one whose classes, and answers, stand in another order."""
    model = load(trained)
    for tensor in (model.head.weight, model.head.bias):
        tensor.data.copy_(tensor.data.flip(0))
    other = replace(model.preprocess, class_names=("light", "dark"))
    save_model(here / "turned", model, other, model.about)
    make_photos(here / "more")
    return "turned"


@pytest.mark.parametrize("more", [(), ("--protocol", "robustness", "--kinds", "blur")])
def test_the_order_changes_no_figure(mixer, trained, turned, more):
    straight, other = (
        mixer("evaluate", model, "--on", "more", "--json", *more)
        for model in (str(trained), turned)
    )
    assert straight[2] == "" and "matched by name" in other[2]
    found, expected = json.loads(other[1]), json.loads(straight[1])
    if more:
        assert found["rows"] == expected["rows"]
    else:
        assert found["top1"] == expected["top1"] > 0.9
        assert found["nll"] == pytest.approx(expected["nll"])


def test_some_of_a_models_classes_can_be_measured(mixer, trained, here):
    make_photos(here / "more", classes=("dark", "grey", "light"))
    words = ("evaluate", str(trained), "--on", "more")
    code, _, err = mixer(*words)
    assert code == 2 and "Unknown to the model: grey." in err
    assert "\n  --data.classes dark light\n" in err
    for chosen in (("light", "dark"), ("light,dark",)):
        found = json.loads(mixer(*words, "--json", "--data.classes", *chosen)[1])
        assert found["samples"] == 40
    code, out, err = mixer(*words, "--data.classes", "light")
    assert code == 0 and err == ""
    assert ["classes with images", "1 of 2 that it knows"] in [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()
    ]
    some = json.loads(mixer(*words, "--data.classes", "light", "--json")[1])
    recall = {row["name"]: row["recall"] for row in found["per_class"]}
    assert some["samples"] == 20 and some["top1"] == recall["light"]
    code, _, err = mixer(*words, "--data.classes", "lightt")
    assert code == 2 and "--data.classes: more has no class 'lightt'. Did you mean 'light'?" in err


def test_a_class_that_is_not_there_is_named_in_a_list_with_commas_too(mixer, trained, here):
    make_photos(here / "more")
    words = ("evaluate", str(trained), "--on", "more", "--data.classes")
    code, _, err = mixer(*words, "light,drk,xyz")
    assert code == 2 and "more has no class 'drk'. Did you mean 'dark'? And no class 'xyz'." in err


@pytest.mark.parametrize("protocol", ["top1", "fewshot", "robustness"])
@pytest.mark.parametrize("nothing", [(), ("",), ("--json",)])
def test_data_classes_followed_by_nothing_is_not_all_of_them(mixer, trained, protocol, nothing):
    words = ("evaluate", str(trained), "--protocol", protocol, "--data.classes", *nothing)
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "--data.classes needs the name of at least one" in err
    assert mixer(*words[: -1 - len(nothing)], "--data.classes=")[0] == 2


def test_classes_that_a_split_lacks_can_be_left_out(mixer, trained, here):
    """test/ without a class that train/ has."""
    make_photos(here / "more" / "train", classes=("dark", "grey", "light"))
    make_photos(here / "more" / "test", count=3)
    words = ("evaluate", str(trained), "--on", "more")
    code, _, err = mixer(*words)
    assert code == 2 and "only in train/: grey" in err
    assert "\n  --data.classes dark light\n" in err
    found = json.loads(mixer(*words, "--json", "--data.classes", "dark", "light")[1])
    assert (found["samples"], found["split"], found["top1"]) == (6, "test", 1)
    code, _, err = mixer(*words, "--data.classes", "dark", "grey")
    assert code == 2 and "only in train/: grey" in err
