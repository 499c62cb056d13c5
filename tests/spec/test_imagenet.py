"""ImageNet-1k's classes, beside the lists that timm ships and a few that everybody knows."""

from pathlib import Path

import pytest

from mixerkit.spec.imagenet import imagenet_classes, imagenet_names, readable
from mixerkit.spec.zoo import PUBLISHED

SAID_APART = {
    "n02012849": "crane (bird)",
    "n02113186": "Cardigan Welsh corgi",
    "n03126707": "crane (machine)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (tank suit)",
}


def test_labels_that_everybody_knows():
    names = imagenet_classes()
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 285: "Egyptian cat"}
    known |= {574: "golf ball", 817: "sports car", 985: "daisy", 999: "toilet tissue"}
    assert {label: names[label] for label in known} == known


def test_a_thousand_names_of_which_no_two_are_alike():
    numbers, names = list(imagenet_names()), imagenet_classes()
    assert len(names) == 1000 and numbers == sorted(numbers)
    assert len({name.casefold() for name in names}) == 1000
    assert all(name and name == name.strip() and "," not in name for name in names)


def test_numbers_and_names_are_those_that_timm_ships():
    timm = pytest.importorskip("timm")
    folder = Path(timm.__file__).parent / "data" / "_info"
    assert list(imagenet_names()) == (folder / "imagenet_synsets.txt").read_text().split()
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    words = dict(line.split("\t", 1) for line in lines)
    for number, name in imagenet_names().items():
        assert name == SAID_APART.get(number, words[number].split(",")[0])


def test_numbers_become_readable_and_other_names_stay():
    assert readable(["n02123045", "tabby", "n99999999"]) == ("tabby", "tabby", "n99999999")
    assert readable(tuple(imagenet_names())) == imagenet_classes()
    assert readable(imagenet_classes()) == imagenet_classes()


def test_published_models_name_their_classes_where_they_are_imagenets():
    for model in PUBLISHED.values():
        named = len(model.prepared.class_names)
        assert named == (1000 if "imagenet1k" in model.name or "sam" in model.name else 0)
        assert model.num_classes == named or model.num_classes > 11_000
