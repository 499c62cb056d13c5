import json
import shlex
import shutil

import pytest

from mixerkit.cli import demo
from mixerkit.cli.main import main
from mixerkit.results import read_results
from mixerkit.spec.recipes import recipe
from tests.cli.tiny import make_photos


@pytest.fixture
def small(tiny, here, monkeypatch):
    """The demo with the tiny recipe in place of its own, and a test split."""
    make_photos(here / "split" / "train")
    make_photos(here / "split" / "test", count=4)
    text = tiny.read_text().replace("source: photos", f"source: {here / 'split'}")
    tiny.write_text(text)
    monkeypatch.setattr(demo, "recipe", lambda name: recipe(str(tiny)))
    monkeypatch.setattr(demo, "PHOTOS", here / "photos")


def test_demo_ends_with_figures_and_commands_that_work(mixer, small, here, capsys):
    code, out, err = mixer("demo", "--results", "results/demo.json")
    assert (code, err) == (0, "")
    assert "test accuracy" in out and "of 8 photographs" in out and "report.html" in out
    tries = out.partition("Try next:\n")[2].splitlines()
    assert len(tries) == 3
    for line in tries:
        words = shlex.split(line)
        words = words[words.index("mixerkit") + 1 :] if "-m" in words else words[1:]
        assert main(words) == 0
    row = read_results(here / "results" / "demo.json")["rows"][0]
    assert 0 <= row["test_accuracy"] <= 1 and row["seconds"] > 0 and row["parameters"] > 100


def test_second_demo_takes_the_next_folder_and_says_so(mixer, small, here):
    (here / "runs" / "tiny").mkdir(parents=True)
    code, out, err = mixer("demo", "--json")
    assert code == 0 and json.loads(out)["run"] == "runs/tiny-2"
    assert "runs/tiny is taken, so this run is runs/tiny-2." in err
    shutil.rmtree(here / "runs")
