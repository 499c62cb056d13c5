"""`mixer evaluate --protocol robustness` from end to end."""

import io
import json
import shlex

import pytest
from PIL import Image

from mixerkit.evaluation.conditions import KINDS
from mixerkit.results import read_results

HARD = ("--protocol", "robustness")


@pytest.fixture
def demo(repository) -> tuple[str, ...]:
    """The packaged model on 200 test images of Fashion-MNIST."""
    samples = repository / "tests" / "samples"
    return ("evaluate", "zoo:fashion-demo", "--data.root", str(samples))


def as_json(found: tuple[int, str, str]) -> dict:
    code, out, _ = found
    assert code == 0
    return json.loads(out)


def test_everything_on_sample_images_by_the_packaged_model(mixer, demo, here):
    code, out, err = mixer(*demo, *HARD, "--out", "new/hard.json")
    assert (code, err) == (0, "")
    stored = read_results(here / "new" / "hard.json")
    assert stored["command"] == shlex.join(["mixer", *demo, *HARD, "--out", "new/hard.json"])
    settings = stored["settings"]
    assert (settings["data"], settings["images"]) == ("fashion-mnist test", 200)
    rows = stored["rows"]
    assert [row["kind"] for row in rows].count("size") == 5
    assert {row["kind"] for row in rows} == {"clean", *KINDS}
    top1 = as_json(mixer(*demo, "--json"))
    for name in ("top1", "top1_interval", "top1_interval_by"):
        assert rows[0][name] == top1[name]
    all_moved = next(row for row in rows if row["kind"] == "shuffle" and row["strength"] == 1)
    assert all_moved["moved"] == 16 and all_moved["drop"] > 0.5
    assert sorted(path.name for path in (here / "new").iterdir()) == ["hard.json", "hard.png"]
    with Image.open(here / "new" / "hard.png") as picture:
        assert picture.width > 2 * picture.height
    assert "fashion-mnist test" in out and "written: new/hard.json, new/hard.png" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "gaussian blur, σ in px 0.35 0.53 0.61 0.70 0.88" in lines
    low, high = (f"{100 * end:.2f}" for end in top1["top1_interval"])
    assert f"top-1, clean {100 * rows[0]['top1']:.2f} % ({low} to {high})" in lines
    assert any(line.startswith("56 × 56 in tiles 100 %") for line in lines)


def test_nothing_is_written_without_out_and_kinds_are_what_is_measured(mixer, demo, here):
    before = sorted(here.rglob("*"))
    words = (*demo, *HARD, "--kinds", "shuffle", "jpeg", "--images", "50")
    found = as_json(mixer(*words, "--json"))
    assert [row["kind"] for row in found["rows"]] == ["clean", *["shuffle"] * 3, *["jpeg"] * 5]
    assert (found["images"], found["split_images"]) == (50, 200)
    assert sorted(here.rglob("*")) == before
    assert as_json(mixer(*words, "--json", "--batch-size", "7")) == found
    assert as_json(mixer(*words, "--json", "--seed", "1"))["rows"] != found["rows"]
    with_comma = (*words[:-4], "shuffle,jpeg", *words[-2:])
    assert as_json(mixer(*with_comma, "--json", "--data.memory", "0")) == found
    code, out, _ = mixer(*words)
    assert code == 0 and "patches of 7 × 7 px moved, of 16" in out and "blur" not in out


def test_json_and_out_at_once_keep_stdout_json(mixer, trained):
    words = ("evaluate", str(trained), *HARD, "--kinds", "blur", "--out", "a.json", "--json")
    code, out, err = mixer(*words)
    assert code == 0 and json.loads(out)["rows"] == read_results("a.json")["rows"]
    assert err == "written: a.json, a.png\n"


def test_the_split_is_chosen_and_named(mixer, trained):
    """What the run held out, its training images, or other images."""
    words = ("evaluate", str(trained), *HARD, "--kinds", "noise", "--json")
    held_out = as_json(mixer(*words))
    assert held_out["data"].endswith("held out") and held_out["images"] == 8
    train = as_json(mixer(*words, "--split", "train"))
    assert train["images"] == 32
    other = as_json(mixer(*words, "--on", str(trained.parent / "photos"), "--split", "validation"))
    assert other == held_out  # the same images, however they are named


def test_without_matplotlib_there_is_a_results_file_alone(mixer, trained, here, monkeypatch):
    monkeypatch.setattr("mixerkit.insight.canvas.can_draw", lambda: False)
    code, _, err = mixer("evaluate", str(trained), *HARD, "--kinds", "jpeg", "--out", "a.json")
    assert code == 0 and err.startswith("note: there is no figure: matplotlib")
    assert (here / "a.json").is_file() and not (here / "a.png").exists()


def test_progress_is_said_on_a_terminal(trained, monkeypatch, mixer):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert mixer("evaluate", str(trained), *HARD, "--kinds", "jpeg", "--batch-size", "3")[0] == 0
    assert "images under 6 conditions: 3 of 48, " in terminal.getvalue()
    assert " left" in terminal.getvalue()


CASES = {
    "no model": ((), "Which model?"),
    "misspelt kind": (("MODEL", "--kinds", "fog"), "--kinds"),
    "no images at once": (("MODEL", "--batch-size", "0"), "--batch-size must be at least 1"),
    "fewer than no images": (("MODEL", "--images", "-1"), "--images must be at least 1, or 0"),
    "another kind of file": (
        ("MODEL", "--out", "a.png"),
        "--out must be a file that ends in .json",
    ),
    "no such memory": (
        ("MODEL", "--data.memory", "-1"),
        "error: --data.memory must not be negative",
    ),
    "two sources": (("MODEL", "--on", "a", "--data.source", "b"), "name two sources"),
    "no such split": (("MODEL", "--split", "test"), "has no test split, it has"),
    "other classes": (
        ("zoo:fashion-demo", "--on", "photos"),
        "which must be the same, in any order",
    ),
    "fresh weights": (("N/4",), "does not say which classes it knows"),
    "no such folder": (("MODEL", "--on", "nowhere"), "'nowhere' is no folder"),
    "misspelt option": (("MODEL", "--kind", "blur"), "--kind"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, mixer, trained, photos, here):
    words, says = CASES[case]
    before = sorted(here.rglob("*"))
    named = [str(trained) if word == "MODEL" else word for word in words]
    code, out, err = mixer("evaluate", *named, *HARD)
    assert (code, out) == (2, "") and says in err
    assert sorted(here.rglob("*")) == before


def test_broken_images_are_named_or_left_out(mixer, trained, photos):
    """Others are spoiled as they were: what is random goes by the image's place in the split."""
    words = ("evaluate", str(trained), *HARD, "--on", "photos", "--kinds", "noise")
    whole = as_json(mixer(*words, "--json"))
    for name in ("03", "04"):
        (photos / "dark" / f"{name}.png").write_bytes(b"no picture")
    code, out, err = mixer(*words)
    assert (code, out) == (2, "") and "2 of 40 images" in err and "--skip-broken" in err
    assert "03.png" in err and "04.png" in err
    found = as_json(mixer(*words, "--skip-broken", "--json"))
    assert [row["index"] for row in found["unreadable"]] == [3, 4] and found["images"] == 38
    pairs = zip(whole["rows"], found["rows"], strict=True)
    assert all(abs(38 * b["top1"] - 40 * a["top1"] + 2) <= 2 for a, b in pairs)
    assert "Left out: 2 of 40 images cannot be used" in mixer(*words, "--skip-broken")[1]


@pytest.mark.parametrize("taken", ["a.json", "a.png"])
def test_nothing_is_overwritten(mixer, trained, here, taken):
    (here / taken).write_text("mine")
    words = ("evaluate", str(trained), *HARD, "--kinds", "blur", "--out", "a.json")
    code, out, err = mixer(*words)
    assert (code, out) == (2, "") and f"{taken} already exists and is never overwritten" in err
    assert (here / taken).read_text() == "mine" and len(list(here.glob("a.*"))) == 1


def test_help(mixer):
    code, out, _ = mixer("evaluate", *HARD, "--help")
    assert code == 0 and "--kinds" in out and "mixer evaluate zoo:fashion-demo" in out
