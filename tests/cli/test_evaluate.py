"""`mixer evaluate`: other images, the paper's crops, ReaL, published figures, several processes."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load
from mixerkit.cli.evaluate import Evaluate, _cropped
from mixerkit.cli.images import data_named
from mixerkit.data.real import real_file, real_labels
from mixerkit.data.sources import open_source
from mixerkit.evaluation.agreement import beside_published
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Data
from tests.cli.test_torchrun import start
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


def test_other_images_are_taken_whole():
    """What a run took of its own, classes and validation images too, says nothing of others."""
    own = Data("pets", holdout=0.1, split_seed=3, classes=("Beagle",), join_validation=True)
    assert data_named([], own, "") == data_named([], own, "pets") == own
    assert data_named([], own, "cifar10") == Data("cifar10")


@pytest.mark.parametrize("size", ["1", "7", "256"])
def test_the_batch_size_changes_no_figure(mixer, size):
    found, automatic = (
        as_json(mixer(*DEMO, "--json", *more)) for more in (("--batch-size", size), ())
    )
    assert found["speed"]["batch_size"] == int(size)
    assert (found["top1"], found["confusion"]) == (automatic["top1"], automatic["confusion"])
    assert found["nll"] == pytest.approx(automatic["nll"], rel=1e-5)


def test_the_papers_crops():
    class Model:
        preprocess = Preprocess(image_size=224, resize="none")

    def cropped(crop):
        return _cropped(Model(), replace(Evaluate("x"), crop=crop))

    assert cropped("own") == Model.preprocess
    found = cropped("resize-crop"), cropped("resmall-crop")
    assert [(one.resize, one.resize_to) for one in found] == [("squash", 256), ("shortest", 256)]
    Model.preprocess = Preprocess(image_size=448)
    assert cropped("resmall-crop").resize_to == 512


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
    from mixerkit.data.loader import EvaluationLoader

    loader = EvaluationLoader(split, model.preprocess, batch_size=4)
    with torch.inference_mode():
        guesses = torch.cat([model(images).argmax(dim=1) for images, _ in loader]).tolist()
    right = [guess in own for guess, own in zip(guesses, truth, strict=True) if own]
    assert found["real"] == {
        "samples": len(right), "left_out": len(truth) - len(right), "top1": np.mean(right),
    }  # fmt: skip
    assert found["real"]["left_out"] > 0 and found["samples"] == len(split)
    assert "ReaL top-1" in mixer(*photographer, "--on", "imagenet-real")[1]
    assert "real" not in as_json(mixer(*photographer, "--on", "imagenet", "--json"))


def test_missing_labels_are_said_before_any_time_is_spent(mixer, photographer, imagenet):
    file = imagenet / "imagenet" / "real.json"
    hidden = file.rename(file.with_suffix(".away"))
    code, out, err = mixer(*photographer, "--on", "imagenet-real")
    hidden.rename(file)
    assert code == 2 and out == "" and "real.json" in err and "reassessed-imagenet" in err


def test_other_classes_are_refused(mixer, photographer):
    code, _, err = mixer(*photographer, "--on", "fashion-mnist", "--data.root", str(SAMPLE))
    assert code == 2 and "must be the same in the same order" in err


def test_a_published_model_says_whether_it_agrees():
    found = {"top1": 0.7646, "top1_interval": (0.7609, 0.7683), "real": {"top1": 0.81}}
    said = beside_published("zoo:b16-imagenet1k-google", "imagenet", found)
    assert said is not None
    top1, real = said["figures"]["top-1"], said["figures"]["ReaL top-1"]
    assert (top1["published"], top1["agrees"]) == (76.44, True)
    assert top1["difference"] == pytest.approx(0.02)
    assert (real["published"], real["agrees"]) == (82.36, False)
    assert beside_published("zoo:b16-imagenet1k-google", "pets", found) is None
    assert beside_published("runs/mine", "imagenet", found) is None
    assert beside_published("zoo:b16-imagenet21k-google", "imagenet", found) is None


@pytest.mark.slow
def test_two_processes_find_what_one_finds(mixer, tmp_path):
    process = start(tmp_path, *DEMO, "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    shared, alone = json.loads(out), as_json(mixer(*DEMO, "--json"))
    for name in ("samples", "top1", "top5", "confusion", "per_class", "top1_interval"):
        assert shared[name] == alone[name], name
    assert shared["nll"] == pytest.approx(alone["nll"], rel=1e-5)
    bad: subprocess.Popen[str] = start(tmp_path, *DEMO, "--split", "nosuch")
    _, err = bad.communicate(timeout=240)
    assert bad.returncode != 0 and err.count("mixer: error:") == 1
