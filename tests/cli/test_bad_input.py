"""Bad input of every kind: one message that says what is wrong, exit code 2, nothing written."""

from pathlib import Path

import pytest
from PIL import Image

from mixerkit.checkpoint.run import RunFolder
from mixerkit.cli.program import program
from mixerkit.spec.recipes import recipe
from tests.cli.tiny import RECIPE, make_photos

TRAIN = ("train", "tiny.yaml", "--out", "run")

# Command line → what its message must contain.
CASES = {
    "unknown command": (("tarin",), "Unknown command 'tarin'. Did you mean 'train'?"),
    "unknown recipe": (("train", "fashion-dmo"), "Did you mean 'fashion-demo'?"),
    "no recipe": (("train",), "Which recipe?"),
    "options before the recipe": (("train", "--seed", "1", "tiny.yaml"), "It comes first"),
    "missing recipe file": (("train", "nowhere.yaml"), "No recipe file nowhere.yaml"),
    "misspelt option": ((*TRAIN, "--model.dpeth", "2"), "--model.depth"),
    "misspelt switch": ((*TRAIN, "--dry-rnu"), "--dry-run"),
    "text for a number": ((*TRAIN, "--model.depth", "six"), "--model.depth"),
    "two recipes": (("train", "tiny.yaml", "fashion-demo"), "fashion-demo"),
    "value out of a list": ((*TRAIN, "--optimizer.name", "adam"), "Expected one of adamw, sgd"),
    "unknown unit": ((*TRAIN, "--duration", "3 weeks"), "Expected a duration"),
    "negative rate": ((*TRAIN, "--optimizer.lr", "-1"), "must be positive"),
    "unknown variant": ((*TRAIN, "--model", "B16"), "Did you mean 'B/16'?"),
    "indivisible size": ((*TRAIN, "--model.image-size", "20"), "nearest valid sizes are 16 and 24"),
    "image smaller than the patch": (
        (*TRAIN, "--model.patch-size", "32"),
        "image height of 16 px is smaller than the patch of 32 px",
    ),
    "missing folder": ((*TRAIN, "--data.source", "nowhere"), "'nowhere' is no folder"),
    "one class only": ((*TRAIN, "--data.source", "one"), "at least two sub-folders"),
    "nothing to learn from": ((*TRAIN, "--batch-size", "500"), "batch"),
    "warm-up longer than the run": ((*TRAIN, "--schedule.warmup", "99 steps"), "warmup"),
    "images of another size": (
        (*TRAIN, "--data.resize", "none", "--model.image-size", "8"),
        "8 × 8",
    ),
    "dry run of a bad recipe": ((*TRAIN, "--dry-run", "--data.source", "nowhere"), "no folder"),
    "run folder in use": (("train", "tiny.yaml", "--out", "photos"), "is not empty"),
    "run folder is a file": (("train", "tiny.yaml", "--out", "tiny.yaml"), "is a file"),
    "resume of nothing": (("train", "--resume", "nowhere"), "`mixer runs` lists"),
    "resume with a recipe": (("train", "tiny.yaml", "--resume", "x"), "leave out 'tiny.yaml'"),
    "dry run of a resumed run": (("train", "--resume", "old", "--dry-run"), "leave one out"),
    "no such model": (("info", "B/17x"), "No model 'B/17x'"),
    "no model named": (("info",), "Which model?"),
    "options before the model": (("info", "--depth", "3", "B/16"), "It comes first: `mixer info"),
    "indivisible size for info": (("info", "B/16", "--image-size", "225"), "224 and 240"),
    "patch of no family": (("info", "B/15"), "multiple of the patch"),
    "evaluate fresh weights": (("evaluate", "N/7"), "N/7"),
    "evaluate no model": (("evaluate",), "Which model?"),
    "evaluate options before the model": (
        ("evaluate", "--data.source", "photos", "runs/a"),
        "It comes first: `mixer evaluate MODEL",
    ),
    "predict a missing file": (("predict", "nowhere.png", "--model", "N/7"), "nowhere.png"),
    "predict a folder without images": (("predict", "empty", "--model", "N/7"), "No images in"),
    "predict nothing": (("predict", "--model", "N/7"), "Which images?"),
    "predict with fresh weights": (("predict", "photos", "--model", "N/7"), "cannot name classes"),
    "zoo model that is not there": (("predict", "photos", "--model", "zoo:nix"), "zoo:nix"),
    "hub model": (("info", "hf://org/name"), "hf://org/name"),
    "show no recipe": (("recipes", "show"), "Show which recipe?"),
    "list with a name": (("recipes", "list", "tiny.yaml"), "say `show`"),
    "runs of a missing folder": (("runs", "list", "nowhere"), "No folder nowhere"),
    "report of no run": (("runs", "report", "photos"), "is not a run folder"),
    "unknown study": (("bench", "sped"), "one of speed, inference, "),
    "name that no disk takes": (("train", "a" * 300), "File name too long"),
    "name on many pages": (("runs", "list", "a" * 9_000), "File name too long"),
}


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def assert_refused(result: tuple[int, str, str], expected: str) -> None:
    code, out, err = result
    assert expected in " ".join(err.split()).replace(f"`{program()} ", "`mixer ")
    assert code == 2 and (out == "" or "run:" in out)  # what a run says before it fails
    assert "Traceback" not in err
    assert err.startswith("mixer: error:") and err.count("mixer:") == 1


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, mixer, tiny, here):
    make_photos(here / "one", classes=("dark",), count=3)
    (here / "empty" / "folder.jpg").mkdir(parents=True)
    (here / "old").mkdir()
    (here / "old" / "recipe.yaml").write_text(RECIPE)
    words, expected = CASES[name]
    before = everything(here)
    assert_refused(mixer(*words), expected)
    assert everything(here) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RECIPE + "optimiser: {lr: 1}\n", "Unknown setting 'optimiser'. Did you mean 'optimizer'?"),
        (RECIPE.replace("depth: 1", "dpeth: 1"), "Did you mean 'depth'?"),
        (RECIPE.replace("depth: 1", "depth: one"), "model.depth must be a whole number"),
        (RECIPE + "name: [unclosed\n", "line"),
        ("just words\n", "must hold settings"),
        ("extends: fashion-dmo\n", "Did you mean 'fashion-demo'?"),
    ],
    ids=["key", "nested key", "type", "syntax", "no mapping", "extends"],
)
def test_bad_yaml(mixer, tiny, here, text, expected):
    tiny.write_text(text)
    before = everything(here)
    assert_refused(mixer(*TRAIN), expected)
    assert everything(here) == before


def test_unreadable_yaml(mixer, tiny):
    tiny.write_bytes(b"\xff\xfe\x00name")
    assert_refused(mixer(*TRAIN), "not a text file")


def test_second_writer(mixer, tiny, here):
    run = here / "run"
    with RunFolder.create(run, recipe(str(tiny))):
        before = everything(here)
        assert_refused(mixer("train", "--resume", "run"), "is being written by process")
        assert_refused(mixer(*TRAIN), "already holds a run")
        assert everything(here) == before


def test_resumed_run_keeps_its_recipe(mixer, tiny, here):
    RunFolder.create(here / "run", recipe(str(tiny))).close()
    result = mixer("train", "--resume", "run", "--optimizer.lr", "0.5", "--seed", "3")
    assert_refused(result, "keeps its recipe and folder, found --optimizer, --seed")
    assert_refused(mixer("train", "--resume", "run", "--out", "other"), "found --out")


def test_broken_training_image_is_named_when_none_may_be(mixer, tiny, here):
    make_photos(here / "broken", count=12)
    (here / "broken" / "light" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    words = (*TRAIN, "--data.source", "broken", "--data.max-unreadable", "0")
    assert_refused(mixer(*words), "broken/light/bad.png")


def test_a_broken_image_among_others_is_named_and_the_others_follow(mixer, trained, here):
    Image.new("L", (16, 16)).save(here / "a.png")
    (here / "b.png").write_bytes((here / "a.png").read_bytes()[:40])
    Image.new("L", (16, 16)).save(here / "c.png")
    code, out, err = mixer("predict", "a.png", "b.png", "c.png", "--model", str(trained))
    assert code == 1 and err.count("mixer: error:") == 1 and "b.png" in err
    assert [line.split()[0] for line in out.splitlines()] == ["a.png", "c.png"]
