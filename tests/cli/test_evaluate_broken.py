"""`mixer evaluate` on a folder with broken images: it names them, or leaves them out, too."""

import json
import os

import pytest

from tests.cli.tiny import make_photos

BROKEN = ("dark/03.png", "light/07.png")


@pytest.fixture
def words(trained, here):
    """The command on 40 photographs of which two are cut short."""
    make_photos(here / "more")
    for name in BROKEN:
        os.truncate(here / "more" / name, 50)
    return ("evaluate", str(trained), "--data.source", "more")


def test_broken_images_stop_it_and_are_named_with_their_number(mixer, words):
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "2 of 40 images of more cannot be used" in err
    assert all(f"{name} (it is broken or cut short" in err for name in BROKEN)
    assert "--skip-broken" in err


def test_a_single_one_is_named_as_it_is(mixer, words, here):
    (here / "more" / BROKEN[1]).unlink()
    code, _, err = mixer(*words)
    assert code == 2 and f"Cannot use the image more/{BROKEN[0]}: it is" in err and "--skip" in err


def test_of_many_broken_ones_five_are_named(mixer, words, here):
    for i in range(8):
        os.truncate(here / "more" / "dark" / f"{i:02}.png", 50)
    err = mixer(*words)[2]
    assert "9 of 40 images" in err and err.count("cut short") == 5 and ", …" in err


def test_of_too_many_images_to_look_at_the_first_is_named(mixer, words, monkeypatch):
    monkeypatch.setattr("mixerkit.cli.broken.MOST_LOOKED_THROUGH", 39)
    code, _, err = mixer(*words)
    assert code == 2 and BROKEN[0] in err and BROKEN[1] not in err
    assert "the first that was met: others of the 40 may be broken too" in err


def test_links_that_lead_nowhere_are_broken_images(mixer, words, here):
    for name in BROKEN:
        (here / "more" / name).unlink()
        (here / "more" / name).symlink_to("nowhere")
    code, out, err = mixer(*words)
    assert code == 2 and out == "" and "leads nowhere" in err and "--skip-broken" in err
    assert "2 of 40" in mixer(*words, "--skip-broken")[1]


@pytest.mark.parametrize("workers", ["0", "1", "2"])
def test_skip_broken_names_what_it_leaves_out(mixer, words, here, workers):
    words = (*words, "--skip-broken", "--data.workers", workers)
    code, out, err = mixer(*words, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and found["samples"] == 38
    assert [(row["index"], row["file"]) for row in found["unreadable"]] == [
        (3, f"more/{BROKEN[0]}"), (27, f"more/{BROKEN[1]}"),
    ]  # fmt: skip
    assert all("cut short" in row["reason"] for row in found["unreadable"])
    code, out, _ = mixer(*words)
    assert code == 0 and "Left out: 2 of 40 images cannot be used" in out
    assert all(f"more/{name}" in out for name in BROKEN)


def test_the_figures_are_those_of_the_folder_without_them(mixer, words, here):
    with_broken = json.loads(mixer(*words, "--skip-broken", "--json")[1])
    for name in BROKEN:
        (here / "more" / name).unlink()
    without = json.loads(mixer(*words, "--json")[1])
    assert without.pop("unreadable") == [] and with_broken.pop("unreadable")
    assert without.pop("speed").keys() == with_broken.pop("speed").keys()
    assert with_broken == without


def test_only_the_first_few_are_shown(mixer, trained, here):
    make_photos(here / "more")
    for i in range(8):
        os.truncate(here / "more" / "dark" / f"{i:02}.png", 50)
    words = ("evaluate", str(trained), "--skip-broken", "--data.source", "more")
    out = mixer(*words)[1]
    assert "8 of 40" in out and out.count("more/dark/") == 5 and out.rstrip().endswith("…")
    assert len(json.loads(mixer(*words, "--json")[1])["unreadable"]) == 8


def test_nothing_but_broken_images(mixer, trained, here):
    make_photos(here / "more", count=2)
    for path in (here / "more").rglob("*.png"):
        os.truncate(path, 50)
    code, out, err = mixer("evaluate", str(trained), "--data.source", "more", "--skip-broken")
    assert code == 2 and out == "" and "None of the 4 images" in err
