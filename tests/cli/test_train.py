import html
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace

import pytest

from mixerkit.checkpoint.run import RunFolder
from mixerkit.cli.running import located, located_init
from mixerkit.cli.train import _parse
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Data, Init
from mixerkit.spec.recipes import RECIPES, recipe
from tests.cli.tiny import make_photos


def test_every_part_of_the_recipe_can_be_changed():
    words = ["fashion-demo", "--model.depth", "6", "--optimizer.lr", "0.01", "--augment.no-flip"]
    words += ["--seed", "7", "--duration", "3 epochs", "--data.mean", "0.3"]
    found = _parse(words).settings
    base = RECIPES["fashion-demo"]()
    assert found == replace(
        base,
        model=replace(base.model, depth=6),
        optimizer=replace(base.optimizer, lr=0.01),
        augment=replace(base.augment, flip=False),
        data=replace(base.data, mean=(0.3,)),
        duration="3 epochs",
        seed=7,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_changed_is_the_recipe_itself(name):
    assert _parse([name]).settings == RECIPES[name]()
    assert _parse(["--json", name]).settings == RECIPES[name]()


@pytest.mark.parametrize("form", [["--model", "S/7"], ["--model=S/7"]])
def test_a_label_takes_the_place_of_the_model_for_the_same_data(form):
    found = _parse(["fashion-demo", *form, "--model.depth", "2"]).settings.model
    assert found == variant("S/7", image_size=28, in_channels=1, num_classes=10, depth=2)


def test_dry_run_writes_nothing(mixer, tiny, here):
    before = sorted(here.rglob("*"))
    code, out, err = mixer("train", "tiny.yaml", "--dry-run")
    assert (code, err) == (0, "") and "parameters" in out and "6 of 8 images" in out
    code, out, err = mixer("train", "tiny.yaml", "--dry-run", "--json")
    assert json.loads(out)["steps"] == 6
    assert sorted(here.rglob("*")) == before


def test_a_run_from_start_to_report(mixer, tiny, here):
    code, out, err = mixer("train", "tiny.yaml")
    assert (code, err) == (0, "")
    run = here / "runs" / "tiny"
    assert recipe(str(run)).name == "tiny" and (run / "report.html").is_file()
    assert "of 8 held-out images" in out and "runs/tiny/report.html" in out
    for words in ("evaluate", "predict photos --model", "export", "info"):
        assert f"mixer {words} runs/tiny\n" in out.partition("Next:\n")[2]

    code, out, err = mixer("train", "tiny.yaml", "--json")  # the name is taken: the next one
    assert code == 0 and "epoch" in err
    found = json.loads(out)
    assert found["run"] == "runs/tiny-2" and found["steps"] == 6
    assert 0 <= found["validation"]["top1"] <= 1

    code, out, _ = mixer("runs", "--json")
    rows = json.loads(out)
    assert code == 0 and {row["name"] for row in rows} == {"tiny", "tiny-2"}
    assert all(row["state"] == "finished" and row["step"] == 6 for row in rows)
    code, out, _ = mixer("runs")
    assert code == 0 and "runs/tiny-2" in out and "finished" in out


def test_an_interrupted_run_says_how_to_go_on(mixer, tiny, here, monkeypatch):
    import signal

    from mixerkit.cli import progress

    class Impatient(progress.Console):
        def say(self, line):
            super().say(line)
            if line.startswith("epoch"):
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(progress, "Console", Impatient)
    code, out, _ = mixer("train", "tiny.yaml", "--out", "run")
    assert code == 128 + signal.SIGTERM and "train --resume run" in out
    monkeypatch.undo()
    monkeypatch.chdir(here)
    with RunFolder.open(here / "run") as run:
        assert run.newest_checkpoint() is not None
    code, out, _ = mixer("train", "--resume", "run")
    assert code == 0 and "resumed at step" in out


def test_evaluate_measures_on_the_run_s_own_data(mixer, trained):
    code, out, err = mixer("evaluate", str(trained), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    stored = json.loads((trained / "evaluation.json").read_text())
    assert found["top1"] == stored["figures"]["top1"] and found["samples"] == 8
    assert found["confusion"] == stored["confusion"]
    code, out, _ = mixer("evaluate", str(trained))
    assert code == 0 and "top-1" in out and "light" in out and "held out" in out


def test_evaluate_takes_other_data_whole(mixer, trained, photos, here):
    """The recipe held 8 of its own 40 images out; that is no reason to hold out of others."""
    files = len(list(photos.rglob("*.png")))
    words = ("evaluate", str(trained), "--data.source", "photos", "--json")
    code, out, err = mixer(*words)
    assert (code, err) == (0, "") and json.loads(out)["samples"] == files == 40
    assert json.loads(mixer(*words, "--data.holdout", "6")[1])["samples"] == 6
    assert (
        json.loads(mixer(*words[:3], "../" + str(photos.relative_to(here.parent)), "--json")[1])[
            "samples"
        ]
        == 40
    )
    make_photos(here / "split" / "train", count=3)
    make_photos(here / "split" / "val", count=2)
    found = json.loads(mixer("evaluate", str(trained), "--data.source=split", "--json")[1])
    assert found["samples"] == 4 and found["data"] == "split val"


def test_own_data_by_another_way_to_it_is_still_its_own(mixer, trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = ("evaluate", str(trained), "--data.source", "../photos", "--json")
    assert json.loads(mixer(*words)[1])["samples"] == 8


def test_the_report_s_command_does_it_again(mixer, tiny, here, monkeypatch):
    """Also resuming and evaluating: from any folder, though the photos were given as ./photos."""
    assert mixer("train", "tiny.yaml", "--out", "runs/first")[0] == 0
    page = (here / "runs" / "first" / "report.html").read_text()
    (line,) = re.findall(r"<pre><code>mixer (train .*?)</code></pre>", page)
    monkeypatch.chdir(here / "runs" / "first")
    code, _, err = mixer(*shlex.split(html.unescape(line)))
    assert (code, err) == (0, "")
    first, again = here / "runs" / "first", here / "runs" / "first-again"
    weights = [run / "model" / "model.safetensors" for run in (first, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert mixer("train", "--resume", str(first))[0] == 0
    assert json.loads(mixer("evaluate", "../first-again", "--json")[1])["samples"] == 8


def test_named_sources_and_missing_folders_stay_as_they_are(here, monkeypatch):
    (here / "cifar10").mkdir()
    (here / "photos").mkdir()
    (here / "inner").mkdir()
    monkeypatch.chdir(here / "inner")
    assert located(Data("cifar10", root="..")) == Data("cifar10", root=str(here))
    assert located(Data("nowhere")) == Data("nowhere")
    assert located(Data("../photos")) == Data(str(here / "photos"))
    assert located(Data("")) == Data("")


def test_where_a_run_begins_is_found_from_everywhere(here):
    for name in ("fashion-demo", "first.yaml", "runs"):
        (here / name).mkdir()
    for source in ("runs", "runs@best"):
        assert located_init(Init(source)) == Init(f"{here}/{source}")
    assert located_init(Init("zoo:x")) == Init("zoo:x") and located_init(Init()) == Init()
    assert located_init(Init(recipe="fashion-demo")) == Init(recipe="fashion-demo")  # a name first
    assert located_init(Init(recipe="first.yaml")) == Init(recipe=f"{here}/first.yaml")


def test_without_matplotlib_it_is_said_before_training(mixer, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = mixer("train", "tiny.yaml")
    first = out.partition("epoch")[0]
    assert code == 0 and "no report" in first and "-m pip install matplotlib" in first
    assert "no report" in err


def test_classes_are_named(mixer, tiny, here):
    code, out, _ = mixer("train", "tiny.yaml", "--out", "a")
    assert code == 0 and "classes: 2 (dark, light)\n" in out
    make_photos(here / "many", classes=tuple(f"c{i:02}" for i in range(12)), count=2)
    out = mixer("train", "tiny.yaml", "--data.source", "many", "--out", "b")[1]
    assert (
        "classes: 12 (c00, c01, c02, c03, c04, c05, c06, c07, c08, c09, …); the recipe has 2" in out
    )


def test_evaluate_refuses_other_classes_and_missing_splits(mixer, trained, photos):
    (photos / "dark").rename(photos / "dim")
    code, _, err = mixer("evaluate", str(trained), "--data.source", str(photos))
    assert code == 2 and "Unknown to the model: dim" in err and "Missing in the data: dark" in err
    code, _, err = mixer("evaluate", str(trained), "--split", "test")
    assert code == 2 and "it has validation, train" in err


def test_report_can_be_written_again(mixer, trained, here):
    run = shutil.copytree(trained, here / "copy")
    (run / "report.html").unlink()
    code, out, _ = mixer("runs", "report", str(run))
    assert code == 0 and out.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()


def test_shown_recipe_is_the_recipe(mixer, here):
    code, out, _ = mixer("recipes", "show", "photos-64")
    (here / "copy.yaml").write_text(out)
    assert code == 0 and recipe("copy.yaml") == RECIPES["photos-64"]()
    code, out, _ = mixer("recipes", "--json")
    assert [row["name"] for row in json.loads(out)] == list(RECIPES)
    assert mixer("recipes")[0] == 0


def test_a_recipe_beside_the_paper(mixer, here):
    code, out, _ = mixer("recipes", "show", "b16-imagenet21k", "--diff-paper")
    marked = [line.split()[1] for line in out.splitlines() if line.strip().startswith("≠")]
    assert code == 0 and marked == ["augment.mix_group", "augment.mix_group:"]
    code, out, _ = mixer("recipes", "show", "b16-imagenet21k", "--diff-paper", "--json")
    assert [row["setting"] for row in json.loads(out) if not row["same"]] == ["augment.mix_group"]
    code, _, err = mixer("recipes", "show", "photos-64", "--diff-paper")
    assert code == 2 and "The paper has no recipe 'photos-64'" in err
    code, _, err = mixer("recipes", "--diff-paper")
    assert code == 2 and "--diff-paper goes with `show`" in err


def test_shrink_tries_a_recipe_at_toy_size(mixer, tiny, here):
    code, out, err = mixer("train", "tiny.yaml", "--shrink", "--model.token-width", "5", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 4
    with RunFolder.open(here / "runs" / "tiny-shrunk") as run:
        model = run.recipe().model
    assert (model.depth, model.width, model.token_width, model.channel_width) == (2, 64, 5, 8)
    code, _, err = mixer("train", "--resume", "runs/tiny-shrunk", "--shrink")
    assert code == 2 and "--shrink starts a new run" in err
