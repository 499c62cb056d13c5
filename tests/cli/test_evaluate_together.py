"""`mixer evaluate` by several processes: they find what one finds, and make a mistake once."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint.load import load, save_model
from mixerkit.data.sources import open_source
from tests.cli.test_torchrun import start
from tests.cli.tiny import make_photos
from tests.faults.child import environment
from tests.faults.ranks import torchrun
from tests.miniature.amount import Amount
from tests.miniature.imagenet import write_imagenet

pytestmark = pytest.mark.slow

FIGURES = (
    "samples",
    "top1",
    "top5",
    "confusion",
    "per_class",
    "top1_interval",
    "unreadable",
    "real",
)
"""What is the same however many processes find it."""


def together(processes: int, folder: Path, cases: dict[str, tuple[str, ...]]) -> dict[str, list]:
    """What each process says of each command line, by rank; started once for all of them."""
    (folder / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        torchrun(processes, "tests.cli.together", [str(folder)]),
        cwd=folder,
        env=environment() | {"GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: [
            json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(processes)
        ]
        for name in cases
    }


@pytest.fixture
def photographs(here, trained) -> None:
    """Odd numbers of images, broken ones among them, and models of which one overflows."""
    make_photos(here / "odd", count=4)
    (here / "odd" / "dark" / "00.png").unlink()
    make_photos(here / "some", count=5)
    for name in ("dark/00.png", "dark/01.png", "light/03.png"):
        os.truncate(here / "some" / name, 50)
    make_photos(here / "all", count=3)
    for path in (here / "all").rglob("*.png"):
        os.truncate(path, 50)
    make_photos(here / "two", count=1)
    make_photos(here / "other", classes=("cat", "dog"))
    model = load(trained)
    with torch.no_grad():
        model.stem.weight.fill_(3e38)
    save_model(here / "overflows", model, model.preprocess, model.about)


def test_a_mistake_is_said_once_and_ends_all(here, trained, photographs):
    evaluate = ("evaluate", str(trained))
    cases = {
        "no-model": (("evaluate", "--json"), "Which model?"),
        "batch": ((*evaluate, "--batch-size", "-1"), "--batch-size must be at least 1"),
        "protocol": ((*evaluate, "--protocol", "fewshot"), "for one process"),
        "classes": ((*evaluate, "--on", "other"), "Unknown to the model: cat, dog"),
        "source": ((*evaluate, "--on", "nowhere"), "'nowhere' is no folder"),
        "split": ((*evaluate, "--on", "odd", "--split", "test"), "has no test split"),
        "broken": ((*evaluate, "--on", "some"), "3 of 10 images of some cannot be used"),
        "all-broken": ((*evaluate, "--on", "all", "--skip-broken"), "None of the 6 images of all"),
        "overflow": (("evaluate", "overflows", "--on", "odd"), "NaN or infinite for"),
    }
    said = together(2, here, {name: words for name, (words, _) in cases.items()})
    for name, (_, expected) in cases.items():
        first, second = said[name]
        assert first["code"] == second["code"] == 2, name
        assert first["out"] == second["out"] == "" and "can no longer reach" not in second["err"]
        errors = first["err"] + second["err"]
        assert errors.count("mixer: error:") == errors.count(expected) == 1, errors


def test_three_processes_find_what_one_finds(mixer, here, trained, photographs):
    """Seven images, two of ten of which cannot be used, fewer images than processes, ReaL."""
    write_imagenet(here / "imagenet", Amount(classes=2, train=8, test=5, side=16))
    names = open_source("imagenet", str(here)).train.class_names
    model = load(trained)
    save_model(here / "photographer", model, replace(model.preprocess, class_names=names), {})
    evaluate = ("evaluate", str(trained), "--json", "--on")
    cases = {
        "odd": (*evaluate, "odd"),
        "some": (*evaluate, "some", "--skip-broken"),
        "two": (*evaluate, "two"),
        "real": (
            "evaluate", "photographer", "--json", "--on", "imagenet-real", "--data.root", str(here),
        ),
    }  # fmt: skip
    alone = {name: mixer(*words) for name, words in cases.items()}
    for name, said in together(3, here, cases).items():
        code, out, err = alone[name]
        assert code == 0 and [one["code"] for one in said] == [0, 0, 0], err
        assert said[1]["out"] == said[2]["out"] == ""
        expected, found = json.loads(out), json.loads(said[0]["out"])
        for figure in FIGURES:
            assert found.get(figure) == expected.get(figure), (name, figure)
        assert found["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    assert expected["real"]["left_out"] > 0


def test_as_people_type_it(here, trained, photographs):
    """The launcher ends with the code of the mistake, and no process waits for another."""
    process = start(here, "evaluate", "overflows", "--on", "odd")
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0 and "exitcode  : 2" in err
    assert err.count("mixer: error:") == 1 and "can no longer reach" not in err
    process = start(here, "evaluate", str(trained), "--on", "odd", "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and json.loads(out)["samples"] == 7, err
