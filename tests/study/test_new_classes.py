"""Classes that a model has never seen: which images are used, and a short bench."""

import numpy as np
import pytest
import torch

from mixerkit.data.sources import opened
from mixerkit.errors import UserError
from mixerkit.results import read_results
from mixerkit.spec.recipe import Data
from mixerkit.study import new_classes
from mixerkit.study.new_classes import MIXER, NEW, VIT, first, fresh, second
from mixerkit.study.peers import cost_of
from mixerkit.training.setup import open_data
from tests.training.runs import SAMPLE

ALL = Data(source="fashion-mnist", root=str(SAMPLE))


def test_only_the_images_of_some_classes() -> None:
    every = opened(ALL)
    some = opened(Data(source="fashion-mnist", root=str(SAMPLE), classes=("Bag", "Coat")))
    assert some.train.class_names == ("Coat", "Bag")  # the source's order
    for whole, part in ((every.train, some.train), (every.test, some.test)):
        assert whole and part and whole.images is not None and part.images is not None
        for label, name in enumerate(part.class_names):
            own = whole.images[whole.labels == whole.class_names.index(name)]
            assert np.array_equal(part.images[part.labels == label], own)
        wanted = [whole.class_names.index(name) for name in part.class_names]
        assert len(part) == np.isin(whole.labels, wanted).sum() > 0
    assert "2 of 10 classes" in some.origin
    with pytest.raises(UserError, match="no class 'Hat'"):
        opened(Data(source="fashion-mnist", root=str(SAMPLE), classes=("Hat",)))


def test_new_classes_are_not_among_those_learned_first() -> None:
    recipe = first(MIXER, 0, quick=False)
    assert len(recipe.data.classes) == 7 and not set(recipe.data.classes) & set(NEW)
    few, splits = open_data(second(recipe, quick=False))
    assert splits.validation and len(splits.validation) == new_classes.HELD_OUT
    counts = np.bincount(splits.train.labels)
    assert len(counts) == 3 and counts.sum() == 300 and counts.min() >= 99
    assert few.model.num_classes == 3 and not few.evaluate.test


def test_both_models_are_of_one_size() -> None:
    mixer, vit = (first(kind, 0, quick=False) for kind in (MIXER, VIT))
    ours, theirs = cost_of("", mixer.model)[1], cost_of("vit", vit.model)[1]
    assert theirs == pytest.approx(ours, rel=0.02)
    assert fresh(VIT, vit, 7)(torch.zeros(1, 1, 28, 28)).shape == (1, 7)


def test_a_quick_bench_writes_all_arms_and_a_picture(tmp_path) -> None:
    said: list[str] = []
    rows = new_classes.study(tmp_path / "a.json", said.append, quick=True)
    content = read_results(tmp_path / "a.json")
    assert content["rows"] == rows and content["settings"]["new_classes"] == list(NEW)
    assert content["settings"]["recipes"][VIT]["then"]["duration"] == "5 steps"
    arms = {(row["part"], row["what"]) for row in rows}
    trained = [f"{kind}, trained on seven classes" for kind in (MIXER, VIT)]
    assert arms == {
        *(("probe", what) for what in (*trained, "Mixer, random weights", "pixels")),
        *(("fine-tuning", what) for what in (*trained, "Mixer, random weights",
                                             "ViT (timm), random weights")),
        *(("seven classes", kind) for kind in (MIXER, VIT)),
    }  # fmt: skip
    assert all(0 <= row["accuracy"] <= 1 for row in rows) and len(rows) == 4 * 4 + 4 + 2
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_every_seed_has_draws_of_its_own() -> None:
    """Pixels differ between seeds by nothing else."""
    recipe = second(first(MIXER, 0, quick=True), quick=True)
    found = [new_classes.probed("pixels", None, seed, recipe) for seed in new_classes.SEEDS]
    again = new_classes.probed("pixels", None, 0, recipe)
    assert again == found[0]
    for shots in zip(*found, strict=True):
        assert len({row["accuracy"] for row in shots}) == len(new_classes.SEEDS)


def test_a_new_head_keeps_the_body() -> None:
    for kind in (MIXER, VIT):
        recipe = first(kind, 0, quick=False)
        model = fresh(kind, recipe, 7)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        result = new_classes.with_new_head(kind, model, recipe)
        own, other = dict(model.named_parameters()), dict(result.named_parameters())
        assert own.keys() == other.keys()
        for name, value in other.items():
            if name.startswith("head."):
                assert value.shape[0] == 3 and not value.any()
            else:
                assert torch.equal(value, own[name]), name
