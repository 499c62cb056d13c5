"""Names in lists with commas, and classes that folders cannot be called."""

import shlex

import pytest

from mixerkit.spec.choices import as_words, classes_named, separated

KNOWN = ("a", "b", "c")
WITH_COMMAS = ("crane, bird", "crane, machine", "bag")


@pytest.mark.parametrize(
    ("words", "known", "expected"),
    [
        (["a", "b"], KNOWN, ("a", "b")),
        (["a,b", "c"], KNOWN, ("a", "b", "c")),
        (["a,", " b"], KNOWN, ("a", "b")),
        (["a,x"], KNOWN, ("a", "x")),
        (["x,y"], KNOWN, ("x", "y")),
        ([","], KNOWN, (",",)),
        (["crane, bird", "bag"], WITH_COMMAS, ("crane, bird", "bag")),
        (["crane, brd"], WITH_COMMAS, ("crane, brd",)),
        (["bag,crane"], WITH_COMMAS, ("bag", "crane")),
    ],
)
def test_what_stands_between_commas(words, known, expected):
    assert separated(words, known) == expected


def test_a_dash_stands_for_a_slash_and_the_other_way_round():
    assert classes_named(["T-shirt-top", "Bag"], ["T-shirt/top", "Bag"]) == ("T-shirt/top", "Bag")
    assert classes_named(["Bag,T-shirt/top"], ["T-shirt-top", "Bag"]) == ("Bag", "T-shirt-top")
    assert classes_named(["a-b", "a/b"], ["a/b", "a-b"]) == ("a-b", "a/b")
    assert classes_named(["x/y"], ["x"]) == ("x/y",)


def test_names_can_be_copied_into_a_shell():
    names = ["Ankle boot", "T-shirt/top", "it's", "$HOME"]
    assert shlex.split(as_words(names)) == names
    assert as_words([]) == as_words(["a long name"] * 200) == ""
