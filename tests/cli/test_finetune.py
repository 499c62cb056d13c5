"""`mixer finetune`: model and preparation of images from the source, the rest from a recipe."""

import json
from dataclasses import replace

import pytest

import mixerkit
from mixerkit.checkpoint.run import RunFolder
from mixerkit.cli.finetune import _parse
from mixerkit.spec.recipes import recipe

SOURCE = "zoo:fashion-demo"


def settings_of(*words):
    return _parse([SOURCE, "--data", "photos", *words]).settings


def test_model_and_preparation_are_the_sources(photos):
    found, model = settings_of(), mixerkit.load(SOURCE)
    base = recipe("finetune")
    assert found.model == replace(model.config, num_classes=base.model.num_classes)
    prepared = model.preprocess
    assert (found.data.mean, found.data.std) == (prepared.mean, prepared.std)
    assert (found.data.resize, found.data.resize_to) == (prepared.resize, prepared.resize_to)
    assert (found.init.source, found.data.source) == (SOURCE, "photos")
    assert found.optimizer == base.optimizer and found.schedule == base.schedule


@pytest.mark.parametrize(
    ("words", "size", "tiles", "token_width"),
    [
        (["--image-size", "56"], 56, 1, 32),
        (["--image-size", "56", "--init.enlargement", "shared"], 56, 2, 32),
        (["--image-size=56", "--init.enlargement=dense"], 56, 1, 128),
        (["--image-size", "28", "42"], (28, 42), 1, 32),
    ],
)
def test_the_model_has_the_size_that_was_asked_for(photos, words, size, tiles, token_width):
    found = settings_of(*words).model
    assert (found.image_size, found.tiles, found.token_width) == (size, tiles, token_width)


def test_every_other_setting_can_be_changed(photos):
    found = settings_of(
        *("--optimizer.lr", "0.5", "--model.drop-path", "0.1", "--data.mean", "0.25"),
        *("--image-size", "42", "--model.in-channels", "3", "--duration", "3 steps"),
    )
    assert (found.optimizer.lr, found.model.drop_path, found.data.mean) == (0.5, 0.1, (0.25,))
    assert (found.model.image_size, found.model.in_channels) == (42, 3)
    assert found.duration == "3 steps"


def test_a_recipe_brings_its_images(photos):
    found = _parse([SOURCE, "--recipe", "finetune-pets", "--data.root", "here"]).settings
    base = recipe("finetune-pets")
    assert (found.data.source, found.data.root) == ("pets", "here")
    assert (found.name, found.duration, found.batch_size) == (base.name, base.duration, 512)
    assert found.model.image_size == 28


@pytest.mark.parametrize("words", [["--image-size", "42"], ["--model.in-channels", "3"]])
def test_a_run_from_start_to_report_and_prediction(mixer, photos, here, words):
    common = ["--batch-size", "4", "--duration", "12 steps"]
    code, out, err = mixer("finetune", SOURCE, "--data", "photos", *words, *common)
    assert (code, err) == (0, "")
    assert f"weights: {SOURCE}, the head fresh" in out and "accuracy" in out
    assert "the recipe has" not in out  # its head was never meant
    run = here / "runs" / "finetune"
    with RunFolder.open(run) as opened:
        assert opened.recipe().init.source == SOURCE
    assert (run / "report.html").is_file()
    code, out, _ = mixer("predict", "photos", "--model", str(run), "--json")
    assert code == 0 and json.loads(out)


def test_a_run_can_be_the_source_from_any_folder(mixer, photos, here, trained):
    words = ["--data", "photos", "--batch-size", "4", "--duration", "2 steps", "--json"]
    code, out, err = mixer("finetune", f"{trained}@newest", *words)
    assert code == 0, err
    with RunFolder.open(here / "runs" / "finetune") as opened:
        assert opened.recipe().init.source == f"{trained}@newest"
    assert json.loads(out)["steps"] == 2


def test_dry_run_writes_nothing(mixer, photos, here):
    before = sorted(here.rglob("*"))
    code, out, err = mixer("finetune", SOURCE, "--data", "photos", "--batch-size", "4", "--dry-run")
    assert (code, err) == (0, "") and "parameters" in out
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Which model? It comes first"),
        (["--data", "photos"], "Which model? It comes first"),
        ([SOURCE], "Which images? Say --data FOLDER"),
        (["zoo:fashion-dem", "--data", "photos"], "Did you mean 'fashion-demo'?"),
        (["B/16", "--data", "photos"], "B/16 is a variant, which has no stored weights"),
        ([SOURCE, "--data", "nowhere"], "'nowhere' is no folder"),
        ([SOURCE, "--data", "photos", "--image-size", "30"], "not a multiple of the patch"),
        ([SOURCE, "--data", "photos", "--recipe", "finetun"], "Did you mean 'finetune'?"),
        ([SOURCE, "--data", "photos", "--resume", "run"], "train --resume RUN` goes on with a run"),
        (
            [SOURCE, "--data", "photos", "--batch-size", "4", "--model.width", "9"],
            "model.width: 64 in the weights, 9",
        ),
        ([SOURCE, "--data", "photos", "--init.source", "other"], "leave --init.source out"),
        ([SOURCE, "--data", "photos", "--data.source", "b"], "are the same: leave one out"),
    ],
)
def test_errors(mixer, photos, here, words, said):
    code, _, err = mixer("finetune", *words)
    assert code == 2 and "Traceback" not in err
    assert said in err.replace(str(here) + "/", "")
    assert not (here / "runs").exists()
