"""`mixer evaluate`: other images, the paper's crops, ReaL, published figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.checkpoint.load import load, save_model
from mixerkit.cli import evaluation_text
from mixerkit.cli.evaluate import _cropped
from mixerkit.cli.images import Images, data_named
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.real import real_file, real_labels
from mixerkit.data.sources import open_source
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Data
from mixerkit.spec.zoo import PUBLISHED
from tests.cli.tiny import make_photos
from tests.miniature.amount import Amount
from tests.miniature.imagenet import write_imagenet
from tests.training.runs import SAMPLE

DEMO = ("evaluate", "zoo:fashion-demo", "--data.root", str(SAMPLE))


def as_json(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_on_names_the_images(mixer):
    by_on = as_json(mixer(*DEMO, "--on", "fashion-mnist", "--json"))
    by_source = as_json(mixer(*DEMO, "--data.source", "fashion-mnist", "--json"))
    assert by_on["top1"] == by_source["top1"] and by_on["samples"] == by_source["samples"]
    code, _, err = mixer(*DEMO, "--on", "a", "--data.source", "b")
    assert code == 2 and "name two sources: leave one out" in err


def test_figures_have_intervals_and_a_speed(mixer):
    found = as_json(mixer(*DEMO, "--json"))
    low, high = found["top1_interval"]
    assert low < found["top1"] < high
    # a share has the interval of a binomial distribution, nearly
    width = 1.96 * (found["top1"] * (1 - found["top1"]) / found["samples"]) ** 0.5
    assert (high - low) / 2 == pytest.approx(width, rel=0.25)
    speed = found["speed"]
    assert speed["images_per_second"] > 0 and 0 <= speed["waiting"] <= 1
    assert found["published"] is None and speed["batch_size"] >= 1
    out = mixer(*DEMO)[1]
    assert "images per second" in out and "waiting for images" in out


def test_top_1_of_all_images_has_an_interval_with_a_width(mixer, trained, here):
    """The tiny run tells dark from light: that all of 40 are right says less of others."""
    make_photos(here / "more")
    words = ("evaluate", str(trained), "--on", "more")
    found = as_json(mixer(*words, "--json"))
    assert (found["samples"], found["top1"], found["top1_interval_by"]) == (40, 1, "wilson")
    assert found["top1_interval"] == [pytest.approx(0.9124, abs=1e-4), 1]
    assert "100.00 % (91.24 to 100.00)" in mixer(*words)[1]


def test_a_folder_is_named_once(mixer, trained, here):
    make_photos(here / "more")
    assert mixer("evaluate", str(trained), "--on", "more")[1].startswith(f"{trained} on more\n\n")
    found = mixer("evaluate", str(trained), "--on", str(here / "more"))[1]
    assert found.startswith(f"{trained} on more\n{here / 'more'}\n")


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_folder_of_images_to_measure_on_needs_no_others(mixer, trained, here, name):
    make_photos(here / "more" / name)
    words = ("evaluate", str(trained), "--on", "more")
    found = as_json(mixer(*words, "--json"))
    split = {"test": "test", "val": "validation"}[name]
    assert (found["samples"], found["split"]) == (40, split) and found["data"] == f"more {name}"
    assert as_json(mixer(*words[:-1], f"more/{name}", "--json"))["split"] == "all"
    code, _, err = mixer(*words, "--protocol", "fewshot")
    assert code == 2 and "more has no training images" in err
    code, _, err = mixer(*words, "--split", "train")
    assert code == 2 and f"it has {split}" in err
    assert mixer("train", "fashion-demo", "--data.source", "more", "--out", "a")[0] == 2


def test_classes_without_images_are_not_listed(mixer):
    out = mixer(*DEMO, "--data.classes", "Bag")[1]
    assert "classes with images" in out
    rows = [line.split() for line in out.partition("precision\n")[2].splitlines() if line.strip()]
    listed = out.partition("precision\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) == 1 and rows[0][0] == "Bag" and "–" not in listed[0]


def test_other_images_are_looked_for_where_a_models_own_were_if_these_are_still_there(tmp_path):
    for root, expected in ((str(tmp_path), str(tmp_path)), (str(tmp_path / "gone"), "")):
        own = Data(source="cifar10", root=root)
        assert data_named(Images(), "photos", own).root == expected
        assert data_named(Images(), "", own).root == root  # and an error names it
        assert data_named(Images(root="here"), "photos", own).root == "here"


def test_other_images_are_taken_whole():
    """What a run took of its own, classes and validation images too, says nothing of others."""
    own = Data("pets", holdout=0.1, split_seed=3, classes=("Beagle",), join_validation=True)
    assert data_named(Images(), "", own) == data_named(Images(), "pets", own) == own
    assert data_named(Images(), "cifar10", own) == Data("cifar10")
    some = Images(holdout=5, classes=("Siamese",), workers=2)
    changed = replace(own, holdout=5, classes=("Siamese",), workers=2)
    assert data_named(some, "", own) == changed
    assert data_named(some, "cifar10", own) == replace(
        Data("cifar10"), holdout=5, classes=("Siamese",), workers=2
    )


IGNORED = ("share", "resize", "resize-to", "interpolation", "mean", "std", "join-validation",
           "scaled-decoding", "max-unreadable")  # fmt: skip


@pytest.mark.parametrize("option", IGNORED)
@pytest.mark.parametrize("protocol", ["top1", "robustness"])
def test_what_a_model_decides_or_training_alone_uses_is_refused(mixer, protocol, option):
    code, out, err = mixer(*DEMO, "--protocol", protocol, f"--data.{option}", "0.5")
    assert code == 2 and out == "" and f"--data.{option}" in err and "--help`" in err


def test_memory_keeps_nothing_where_no_image_is_looked_at_twice(mixer):
    assert mixer(*DEMO, "--data.memory", "1")[0] == 2


def test_words_are_read_before_a_model_is_loaded_or_fetched(mixer, monkeypatch):
    def loaded(name):
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr("mixerkit.checkpoint.load.load", loaded)
    model = ("evaluate", "zoo:b16-imagenet1k-google")
    cases = {
        ("--protocol", "fewshott"): "Unknown protocol 'fewshott'. Did you mean 'fewshot'?",
        ("--protocol=robust",): "Unknown protocol 'robust'.",
        ("--bach-size", "5"): "--bach-size",
        ("--batch-size", "-1"): "--batch-size must be at least 1, or 0",
        ("--on", "a", "--data.source", "b"): "name two sources",
        ("--data.holdout", "1.5"): "data.holdout must be a share",
        ("--protocol", "fewshot", "--shot", "5"): "mixer evaluate --protocol fewshot --help`",
        ("--protocol", "fewshot", "--ridge", "0"): "ridge must be a positive number",
        ("--protocol", "robustness", "--sead", "1"): "evaluate --protocol robustness --help`",
        ("--protocol", "robustness", "--images", "-1"): "--images must be at least 1",
    }
    for words, says in cases.items():
        code, out, err = mixer(*model, *words)
        assert code == 2 and out == "" and says in err, err


@pytest.mark.parametrize("protocol", ["top1", "fewshot", "robustness"])
def test_a_model_that_does_not_say_what_it_knows_gets_no_images_in_silence(
    mixer, trained, here, protocol
):
    model = load(trained)
    save_model(here / "unsaid", model, model.preprocess, {})
    code, out, err = mixer("evaluate", "unsaid", "--protocol", protocol)
    assert code == 2 and out == "" and "give --on NAME|FOLDER" in err
    make_photos(here / "more", count=30)
    named = ("--on", "more", "--data.holdout", "8")
    assert mixer("evaluate", "unsaid", "--protocol", protocol, *named)[0] == 0


@pytest.mark.parametrize("size", ["1", "7", "256"])
def test_the_batch_size_changes_no_figure(mixer, size):
    found, automatic = (
        as_json(mixer(*DEMO, "--json", *more)) for more in (("--batch-size", size), ())
    )
    assert found["speed"]["batch_size"] == int(size)
    assert (found["top1"], found["confusion"]) == (automatic["top1"], automatic["confusion"])
    assert found["nll"] == pytest.approx(automatic["nll"], rel=1e-5)


def test_the_papers_crops():
    own = Preprocess(image_size=224, resize="none")
    assert _cropped(own, "own") == own
    found = [_cropped(own, crop) for crop in ("resize-crop", "resmall-crop")]
    assert [(one.resize, one.resize_to) for one in found] == [("squash", 256), ("shortest", 256)]
    assert _cropped(replace(own, image_size=448), "resmall-crop").resize_to == 512


def test_images_of_another_size_say_what_resizes_them(mixer, trained, here):
    """A model that takes images as they are."""
    model = load(trained)
    as_they_are = replace(model.preprocess, resize="none", resize_to=0)
    save_model(here / "model", model, as_they_are, model.about)
    make_photos(here / "more")
    for path in (here / "more").rglob("*.png"):
        Image.open(path).resize((20, 20)).save(path)
    words = ("evaluate", "model", "--on", "more")
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "give --crop to" in err
    assert mixer(*words, "--crop", "resize-crop")[0] == 0
    probe = (*words, "--protocol", "fewshot", "--shots", "1", "--data.holdout", "8")
    assert mixer(*probe)[0] == 2 and mixer(*probe, "--data.resize", "squash")[0] == 0


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_imagenet(root / "imagenet", Amount(classes=5, train=20, test=5, side=40))
    return root


@pytest.fixture
def photographer(mixer, here, imagenet):
    """A model of the miniature ImageNet's classes."""
    words = (
        "train", "fashion-demo", "--data.source", "imagenet", "--data.root", str(imagenet),
        "--data.holdout", "10", "--data.resize", "shortest", "--duration", "10 steps",
        "--batch-size", "20", "--save.every", "10 steps", "--evaluate.every", "10 steps",
        "--evaluate.no-test", "--out", "seen",
    )  # fmt: skip
    code, _, err = mixer(*words)
    assert code == 0, err
    return ("evaluate", "seen", "--data.root", str(imagenet))


def test_imagenet_real_counts_any_right_label(mixer, photographer, imagenet):
    found = as_json(mixer(*photographer, "--on", "imagenet-real", "--json"))
    split = open_source("imagenet", str(imagenet)).test
    assert split is not None
    truth = real_labels(split, real_file(split))
    model = load("seen")
    loader = EvaluationLoader(split, model.preprocess, batch_size=4)
    with torch.inference_mode():
        guesses = torch.cat([model(images).argmax(dim=1) for images, _ in loader]).tolist()
    right = [guess in own for guess, own in zip(guesses, truth, strict=True) if own]
    few = min(sum(right), len(right) - sum(right)) < 10
    assert found["real"].pop("top1_interval_by") == ("wilson" if few else "bootstrap")
    low, high = found["real"].pop("top1_interval")
    assert found["real"] == {
        "samples": len(right), "left_out": len(truth) - len(right), "top1": np.mean(right),
    }  # fmt: skip
    assert low < found["real"]["top1"] < high
    assert found["real"]["left_out"] > 0 and found["samples"] == len(split)
    line = next(line for line in mixer(*photographer, "--on", "imagenet-real")[1].splitlines()
                if "ReaL top-1" in line)  # fmt: skip
    assert f"({100 * low:.2f} to {100 * high:.2f})" in line
    by_source = as_json(mixer(*photographer, "--data.source", "imagenet-real", "--json"))
    assert by_source["real"]["top1"] == found["real"]["top1"]
    assert "real" not in as_json(mixer(*photographer, "--on", "imagenet", "--json"))


@pytest.fixture
def no_pass(monkeypatch):
    """No image may be computed."""

    def passes(*arguments):
        raise AssertionError("a model went over the images")

    monkeypatch.setattr("mixerkit.cli.measuring.passes", passes)


LABELS = {
    "none at all": (None, "reassessed-imagenet"),
    "of other images": (json.dumps([[1]] * 49_999), "found a list of 49,999"),
    "no list": ("{}", "found an object"),
    "out of range": (json.dumps([[1000]] * 50_000), "the class number 1000"),
    "all empty": (json.dumps([[]] * 50_000), "no label for any of the 25 images"),
}


def test_bad_labels_are_said_before_any_time_is_spent(mixer, photographer, imagenet, no_pass):
    file = imagenet / "imagenet" / "real.json"
    hidden = file.rename(file.with_suffix(".away"))
    for content, says in LABELS.values():
        if content is not None:
            file.write_text(content)
        code, out, err = mixer(*photographer, "--on", "imagenet-real")
        assert code == 2 and out == "" and "real.json" in err and says in err, err
    hidden.rename(file)


def test_other_classes_are_refused(mixer, photographer, no_pass):
    code, _, err = mixer(*photographer, "--on", "fashion-mnist", "--data.root", str(SAMPLE))
    assert code == 2 and "must be the same, in any order" in err
    assert "Unknown to the model: T-shirt" in err and "Missing in the data: tench" in err
    assert "--data.classes" not in err and "--protocol fewshot" in err  # they have none in common


def test_an_empty_split_is_said_before_any_time_is_spent(
    mixer, trained, here, no_pass, monkeypatch
):
    def opened(data):
        splits = open_source(data.source, data.root)
        return replace(splits, train=splits.train.subset([]), test=splits.train.subset([]))

    make_photos(here / "more")
    monkeypatch.setattr("mixerkit.data.sources.opened", opened)
    for more in ((), ("--split", "test"), ("--split", "train")):
        code, out, err = mixer("evaluate", str(trained), "--on", "more", *more)
        assert code == 2 and out == "" and "it has no images at all" in err


def test_a_published_model_is_judged_by_all_validation_images(mixer, photographer, monkeypatch):
    """A few images, or others, get a difference and no verdict."""
    words = (*photographer, "--on", "imagenet-real", "--json")
    top1 = as_json(mixer(*words))["top1"]

    def judged(*more, published=100 * top1 + 0.1):
        one = replace(PUBLISHED["b16-imagenet1k-google"], top1=published, real=None)
        monkeypatch.setattr("mixerkit.cli.evaluate.published", lambda name: one)
        found = as_json(mixer(*words, *more))["published"]
        return found["figures"]["top-1"]["agrees"], found["incomparable"]

    agrees, why = judged()
    assert agrees is None and "these are of 25 images of imagenet val" in why
    assert "no verdict: published figures are of" in mixer(*words[:-1])[1]
    monkeypatch.setattr("mixerkit.evaluation.agreement.IMAGES", 25)
    assert judged() == (True, "") and judged(published=100 * top1 - 0.2) == (False, "")
    out = mixer(*words[:-1])[1]
    assert "published: paper, table 3" in out and "differs" in out and "no verdict" not in out
    assert "another way" in judged("--crop", "resize-crop")[1]
    found = as_json(mixer(*photographer, "--on", "imagenet", "--split", "validation", "--json"))
    assert (
        found["split"] == "validation" and found["published"]["figures"]["top-1"]["agrees"] is None
    )


def test_models_that_nobody_published_are_beside_nothing(mixer, photographer):
    assert as_json(mixer(*photographer, "--on", "imagenet", "--json"))["published"] is None


def test_of_many_classes_the_worst_are_shown(mixer):
    content = as_json(mixer(*DEMO, "--json"))
    one = content["per_class"][0]
    for count, shown in ((40, 40), (41, 10)):
        content["per_class"] = [
            one | {"name": f"class {i}", "recall": i / count if i else None} for i in range(count)
        ]
        content["confusion"] = [[0] * count for _ in range(count)]
        out = evaluation_text.as_text(content, "model")
        assert out.count("  class ") == shown + 1  # and the title
    lines = [line.split()[1] for line in out.splitlines() if line.startswith("  class ")][1:]
    assert lines == [f"{i}" for i in range(1, 11)] and "of 41; --json has all" in out
