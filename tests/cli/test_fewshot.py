"""`mixer evaluate --protocol fewshot` from end to end, on a tiny run and on the packaged model."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit import load, open_source
from mixerkit.checkpoint.load import save_model
from mixerkit.cli.counting import Counting
from mixerkit.cli.fewshot import Resized, _splits
from mixerkit.cli.images import own_data
from mixerkit.cli.progress import Console
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.sources import opened
from mixerkit.evaluation.features import features_of
from mixerkit.evaluation.fewshot import Protocol, draw, measure
from mixerkit.model.mixer import MlpMixer
from tests.cli.tiny import make_photos

FEW = ("--protocol", "fewshot")


@pytest.fixture(autouse=True)
def cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    return here / "cache" / "mixerkit" / "features"


@pytest.fixture
def words(trained: Path, here: Path) -> tuple[str, ...]:
    """The command on other photographs, 20 of each class and 6 for the test."""
    make_photos(here / "more" / "train")
    make_photos(here / "more" / "test", count=6)
    return ("evaluate", str(trained), *FEW, "--on", "more", "--shots", "1", "5")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each forward pass of any model takes from here on."""
    seen, features = [], MlpMixer.features

    def counted(model, x_BIHW):
        seen.append(len(x_BIHW))
        return features(model, x_BIHW)

    monkeypatch.setattr(MlpMixer, "features", counted)
    return seen


def as_json(found: tuple[int, str, str]) -> dict:
    code, out, err = found
    assert (code, err) == (0, "")
    return json.loads(out)


def test_it_is_what_the_parts_give(mixer, repository, monkeypatch):
    """Sample images of Fashion-MNIST, by the packaged model: the command does what its parts do."""
    monkeypatch.setenv("MIXERKIT_DATA", str(repository / "tests" / "samples"))
    found = as_json(mixer("evaluate", "zoo:fashion-demo", *FEW, "--json"))
    assert (found["shots_from"], found["data"]) == ("fashion-mnist train", "fashion-mnist test")
    assert (found["samples"], found["classes"], found["chance"]) == (200, 10, 0.1)
    assert len(found["probes"]) == 12 and found["ridge"] == 1024
    means = {row["shots"]: row["mean"] for row in found["averages"]}
    assert list(means) == [1, 5, 10, 25] and means[5] > 0.75

    model, splits, protocol = load("zoo:fashion-demo"), open_source("fashion-mnist"), Protocol()
    train, test = (
        features_of(model, EvaluationLoader(split, model.preprocess, batch_size=256)).numpy()
        for split in (splits.train, splits.test)
    )
    drawn = draw(splits.train.labels, splits.train.class_names, protocol)
    parts = measure(protocol, drawn, train[drawn.images], test, splits.test.labels)
    ours = [probe["accuracy"] for probe in found["probes"]]
    assert ours == pytest.approx([probe.accuracy for probe in parts.probes], abs=0.011)
    assert means[5] == pytest.approx(np.mean(ours[3:6]))


def test_a_second_probe_takes_no_forward_pass(mixer, words, passes, cache):
    first = as_json(mixer(*words, "--json"))
    looked_at = sum(passes)
    assert looked_at == first["features_computed"] and first["features_from_cache"] == 0
    assert 12 + 10 <= looked_at <= 12 + 30  # the test images, and the shots of three seeds
    second = as_json(mixer(*words, "--json"))
    assert sum(passes) == looked_at and second["features_computed"] == 0
    assert second["features_from_cache"] == looked_at
    assert second["probes"] == first["probes"] and len(list(cache.iterdir())) == 2
    out = mixer(*words)[1]
    assert f"{looked_at} from the cache" in out and "computed" not in out


def test_other_weights_or_images_are_looked_at(mixer, words, passes, trained, here):
    shots = sum(passes_of(mixer, words, passes)) - 12
    assert sum(passes_of(mixer, words, passes)) == 0
    os.utime(here / "more" / "test" / "dark" / "03.png", ns=(1, 1))
    assert sum(passes_of(mixer, words, passes)) == 1
    other = load(trained)
    with torch.no_grad():
        other.stem.bias += 1e-6
    save_model(here / "other", other, other.preprocess, other.about)
    assert sum(passes_of(mixer, ("evaluate", "other", *words[2:]), passes)) == 12 + shots
    squashed = (*words, "--data.resize", "squash")
    assert sum(passes_of(mixer, squashed, passes)) == 12 + shots
    assert sum(passes_of(mixer, (*words, "--no-cache"), passes)) == 12 + shots


def passes_of(mixer, words: tuple[str, ...], passes: list[int]) -> list[int]:
    """The forward passes of one command."""
    passes.clear()
    code, _, err = mixer(*words)
    assert (code, err) == (0, "")
    return passes


def test_other_shots_are_looked_at_once(mixer, words, passes, cache):
    """The images of a probe are among those of one with more shots, or more draws."""
    first = sum(passes_of(mixer, words, passes))
    assert sum(passes_of(mixer, (*words[:-2], "2", "3"), passes)) == 0
    more = sum(passes_of(mixer, (*words, "20", "--seeds", "5"), passes))
    assert first + more == 12 + 40
    for shots in ("1,2,5", "7,20"):
        assert sum(passes_of(mixer, (*words[:-2], shots, "--seeds", "5"), passes)) == 0
    assert len(list(cache.iterdir())) == 2


def test_a_size_of_batches_is_found(mixer, words, passes):
    found = list(passes_of(mixer, (*words, "--no-cache"), passes))
    assert len(found) == 2 and found[1] == 12
    assert set(passes_of(mixer, (*words, "--no-cache", "--batch-size", "1"), passes)) == {1}


def test_shots_may_have_commas(mixer, words):
    found = as_json(mixer(*words, "--json"))
    for shots in (("1,5",), ("1,", "5"), ("1, 5",)):
        other = as_json(mixer(*words[:-2], *shots, "--json"))
        assert other["probes"] == found["probes"]
    assert as_json(mixer(*words[:-3], "--shots=1,5", "--json"))["probes"] == found["probes"]


def test_damaged_features_are_computed_again(mixer, words, passes, cache):
    first = as_json(mixer(*words, "--json"))
    for path in cache.iterdir():
        os.truncate(path / "features.safetensors", 100)
    code, out, err = mixer(*words, "--json")
    assert code == 0 and err.count("note: ") == err.count("computed again.") == 2
    assert json.loads(out) == first
    assert as_json(mixer(*words, "--json"))["features_computed"] == 0


def test_no_cache_leaves_nothing(mixer, words, here):
    before = sorted(here.rglob("*"))
    found = as_json(mixer(*words, "--no-cache", "--json"))
    assert found["features_from_cache"] == 0 and sorted(here.rglob("*")) == before


def test_a_disk_that_takes_nothing_is_no_reason_to_stop(mixer, words, here):
    (here / "cache").write_text("a file where the folder should be")
    code, out, err = mixer(*words)
    assert code == 0 and "shots" in out and err.count("the features are not kept") == 2


def test_the_table(mixer, words):
    code, out, err = mixer(*words)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(": few-shot on more test") and lines[1] == ""  # found in more
    facts = " ".join(" ".join(line.split()) for line in lines)
    for fact in ("images measured 12", "shots from more train", "classes 2", "chance 50.00 %"):
        assert fact in facts
    rows = [line.split("  ") for line in lines if line.strip().startswith(("1 ", "5 "))]
    assert [len([cell for cell in row if cell.strip()]) for row in rows] == [6, 6]
    assert "seed 0" in out and "seed 2" in out and "Student's t" in out
    alone = mixer(*words, "--seeds", "1")[1]
    assert "–" in alone and "seed 1" not in alone


def test_a_checkpoint_is_named_with_its_step(mixer, words, trained):
    out = mixer(words[0], f"{trained}@best", *words[2:])[1]
    assert out.startswith(f"{trained}@best (step ")


def test_on_is_the_source(mixer, words):
    elsewhere = [word if word != "--on" else "--data.source" for word in words]
    both = (*words, "--data.source=more", "--json")
    assert as_json(mixer(*elsewhere, "--json"))["probes"] == as_json(mixer(*both))["probes"]


def test_validation_images_stand_in_for_the_test(mixer, words, here):
    (here / "more" / "test").rename(here / "more" / "val")
    assert as_json(mixer(*words, "--json"))["data"] == "more val"


def test_the_model_s_own_images_are_held_out_as_they_were(mixer, trained):
    """The tiny run held 8 of its 40 images out; no other split is there."""
    words = ("evaluate", str(trained), *FEW, "--shots", "2", "16", "--json")
    found = as_json(mixer(*words))
    assert (found["data"], found["samples"]) == ("photos, held out", 8)
    named = ("--on", str(trained.parent / "photos"))
    assert as_json(mixer(*words, *named))["probes"] == found["probes"]
    code, _, err = mixer(*words, "--shots", "17")
    assert code == 2 and "17 shots need at least 17 training images" in err
    more = as_json(mixer(*words, "--data.holdout", "0.5", "--shots", "2"))
    assert more["samples"] == 20


def test_a_model_of_some_classes_is_measured_on_what_it_never_saw(mixer, tiny, here):
    """Which images are held out depends on the classes, and the probe's are those of training."""
    make_photos(here / "three", classes=("dark", "grey", "light"))
    words = ("--data.source", "three", "--data.classes", "dark", "light")
    code, _, err = mixer("train", "tiny.yaml", *words, "--out", "run")
    assert code == 0, err
    own = own_data(load("run"))
    trained_on, held_out = opened(own).train, opened(own).validation
    learn, test, _ = _splits(Resized(), "", own)
    assert (learn.paths, test.paths) == (trained_on.paths, held_out.paths)
    one, both = (
        _splits(Resized(classes=names), "three", own)[1]
        for names in (("light",), ("dark", "light"))
    )
    assert both.paths == held_out.paths
    assert one.paths == tuple(path for path in held_out.paths if path.parent.name == "light")
    few = ("evaluate", "run", *FEW, "--shots", "2")
    assert as_json(mixer(*few, "--json"))["samples"] == 8
    unseen = ("--data.classes", "dark", "grey")
    code, _, err = mixer(*few, *unseen)
    assert code == 2 and "--data.holdout 0.2" in err
    found = as_json(mixer(*few, *unseen, "--data.holdout", "10", "--json"))
    assert (found["samples"], found["classes"]) == (10, 2)


def test_classes_of_other_images_can_be_chosen(mixer, words, here):
    for split in ("train", "test"):
        make_photos(here / "more" / split, classes=("grey",))
    assert as_json(mixer(*words, "--json"))["classes"] == 3
    found = as_json(mixer(*words, "--json", "--data.classes", "grey", "light"))
    assert (found["classes"], found["samples"]) == (2, 26)


def test_other_images_without_another_split_need_a_holdout(mixer, trained, here):
    make_photos(here / "alone", classes=("x", "y", "z"))
    words = ("evaluate", str(trained), *FEW, "--on", "alone", "--shots", "5")
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "--data.holdout 0.2" in err
    found = as_json(mixer(*words, "--data.holdout", "0.2", "--json"))
    assert (found["samples"], found["classes"]) == (12, 3)


def test_images_for_tests_alone_give_no_shots(mixer, words, monkeypatch):
    def no_training(data):
        splits = opened(data)
        return replace(splits, train=splits.train.subset([]))

    monkeypatch.setattr("mixerkit.data.sources.opened", no_training)
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "more has no training images" in err


def test_a_broken_image_is_an_error_and_nothing_of_it_is_kept(mixer, words, here, cache):
    os.truncate(here / "more" / "test" / "dark" / "03.png", 50)
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "dark/03.png" in err
    assert len(list(cache.iterdir())) == 1  # the shots


def test_broken_images_are_left_out_when_asked_and_others_drawn(mixer, words, here):
    broken = [f"train/dark/{i:02}.png" for i in range(15)] + ["test/light/03.png"]
    for name in broken:
        os.truncate(here / "more" / name, 50)
    code, _, err = mixer(*words)
    assert code == 2 and "images of more train cannot be used" in err and "--skip-broken" in err
    found = as_json(mixer(*words, "--skip-broken", "--json"))
    left_out = [(row["index"], row["file"]) for row in found["unreadable"]]
    assert found["samples"] == 11 and left_out[-1] == (9, f"more/{broken[-1]}")
    assert len(set(left_out)) == len(left_out) and {name for _, name in left_out} <= {
        f"more/{name}" for name in broken
    }
    assert all(name == f"more/train/dark/{i:02}.png" for i, name in left_out[:-1])
    assert "cannot be used" in mixer(*words, "--skip-broken")[1]
    code, _, err = mixer(*words, "6", "--skip-broken")
    assert code == 2 and "dark (5)" in err


def test_of_the_papers_shots_those_that_fit_are_measured(mixer, words, here):
    """20 images of each class: 25 shots are left out, unless they were asked for."""
    code, out, err = mixer(*words[:-3], "--json")
    found = json.loads(out)
    assert code == 0 and [row["shots"] for row in found["averages"]] == [1, 5, 10]
    assert found["shots_left_out"] == [25]
    assert err == "note: without 25 shots: the smallest class of more train has 20 images.\n"
    code, _, err = mixer(*words[:-3], "--shots", "1,5,10,25")
    assert code == 2 and "25 shots need at least 25 training images" in err


def test_an_interval_ends_at_100_percent(mixer, repository):
    """The packaged model tells trousers from bags almost always, once a probe saw the right one."""
    words = ("evaluate", "zoo:fashion-demo", *FEW, "--data.root", f"{repository}/tests/samples",
             "--data.classes", "Trouser", "Bag", "--shots", "1")  # fmt: skip
    row = as_json(mixer(*words, "--json"))["averages"][0]
    low, high = row["interval"]
    assert high == 1 < row["mean"] + row["half_width"] and row["no_interval"] == ""
    assert low == pytest.approx(row["mean"] - row["half_width"])
    assert f"{100 * low:.2f} to 100.00" in mixer(*words)[1]


def test_where_an_interval_is_missing_it_is_said_why(mixer, words):
    """20 images of each class: every draw of 20 shots takes them all."""
    found = as_json(mixer(*words[:-2], "20", "--json"))["averages"][0]
    assert found["interval"] is found["half_width"] is None
    out = mixer(*words[:-2], "20")[1]
    row = next(line for line in out.splitlines() if line.strip().startswith("20 "))
    assert " – " in row and " to " not in row
    assert "– for 20 shots: the same images in every draw, for no class has others." in out
    assert "– for 1 shot: a single draw." in mixer(*words[:-2], "1", "--seeds", "1")[1]


BAD = {
    "too few images": (("--shots", "5", "21"), "dark (20), light (20)"),
    "no shots": (("--shots",), "error: --shots must be numbers of images"),
    "no positive shots": (("--shots", "0"), "from 1 on"),
    "shots that are no number": (("--shots", "5,x"), "--shots takes whole numbers, found '5,x'."),
    "a draw that is no number": (("--seeds", "x"), "--seeds takes a whole number, found 'x'."),
    "strength that is no number": (("--ridge", "x"), "--ridge takes a number, found 'x'."),
    "no seeds": (("--seeds", "0"), "error: --seeds must be at least 1"),
    "no regularisation": (("--ridge", "0"), "error: --ridge must be a positive number"),
    "no batch": (("--batch-size", "-1"), "--batch-size must be at least 1, or 0"),
    "two sources": (("--data.source", "photos"), "name two sources"),
    "size without a way": (("--data.resize-to", "32"), "leave --data.resize-to out"),
    "smaller than the model": (
        ("--data.resize", "squash", "--data.resize-to", "8"), "error: --data.resize-to must be 0",
    ),
    "not a share": (("--data.holdout", "1.5"), "error: --data.holdout must be a share"),
    "fewer threads than none": (("--data.workers", "-1"), "error: --data.workers must not be"),
    "misspelt": (("--shot", "5"), "--shot"),
    "no such source": (("--data.root", "nowhere"), "error: --data.root must be a folder, found no"),
    "another split": (("--split", "train"), "--split"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(mixer, words, name, cache):
    more, expected = BAD[name]
    code, out, err = mixer(*words, *more)
    assert code == 2 and out == "" and expected in " ".join(err.split())
    assert err.startswith("mixer: error:") and "Traceback" not in err
    assert all(inside not in err for inside in ("instantiated", "literal", "NoneType", "tuple["))
    assert not cache.exists()


def test_models_that_cannot_be_probed(mixer, words, trained, here):
    for name, expected in (("N/7", "how images are prepared"), ("nowhere", "nowhere")):
        code, _, err = mixer("evaluate", name, *words[2:])
        assert code == 2 and expected in err
    assert "Which model?" in mixer("evaluate", *FEW, "--on", "more")[2]
    model = load(trained)
    save_model(here / "unsaid", model, model.preprocess, {})
    code, _, err = mixer("evaluate", "unsaid", *FEW)
    assert code == 2 and "--on NAME|FOLDER" in err
    assert mixer("evaluate", "unsaid", *words[2:])[0] == 0


def test_a_file_of_weights_alone_does_where_others_wrote_it(mixer, words, trained, here):
    """Ours needs its config.json, or is written anew; timm's layout says enough."""
    shutil.copy(trained / "model" / "model.safetensors", here / "alone.safetensors")
    code, _, err = mixer("evaluate", "alone.safetensors", *words[2:])
    assert code == 2 and "config.json is missing" in err
    assert "mixer convert alone.safetensors FOLDER --gelu tanh`" in err
    assert mixer("convert", "alone.safetensors", "anew", "--gelu", "tanh")[0] == 0
    assert mixer("convert", str(trained), "timm.safetensors", "--to", "timm")[0] == 0
    for model in ("anew", "timm.safetensors"):
        code, _, err = mixer("evaluate", model, *words[2:])
        assert code == 0, err


def test_help_has_examples(mixer):
    code, out, _ = mixer("evaluate", *FEW, "--help")
    assert code == 0 and "--shots" in out and "Examples:" in out and "--no-cache" in out
    assert "fewshot" in mixer("evaluate", "--help")[1]


class Terminal(io.StringIO):
    """A stream that is a terminal, or not."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live


@pytest.mark.parametrize("live", [True, False])
def test_progress_tells_the_time_left(live, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = Terminal(live)
    count = Counting(Console(stream), "features of x", 400)
    for done in (100, 200, 300, 400):
        now += 20
        count(done)
    said = stream.getvalue().replace("\r", "").split("\x1b[K" if live else "\n")
    lines = [f"features of x: {done} of 400, {left} left" for done, left in
             ((100, "1:00"), (200, "0:40"), (300, "0:20"))]  # fmt: skip
    # elsewhere a line every half minute; a terminal is clear in the end
    assert said == (["", *lines, ""] if live else [lines[1], ""])
