"""`mixer predict`: which files, what is printed, and what broken ones do."""

import io
import json
import os

import pytest
from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.inference.predictor import predict_files


def listing(content: bytes) -> io.TextIOWrapper:
    """Standard input that holds `content`."""
    return io.TextIOWrapper(io.BytesIO(content))


def test_files_folders_and_a_list_name_the_same_images(mixer, trained, photos, monkeypatch):
    files = sorted(photos.rglob("*.png"))
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden").mkdir()
    Image.new("L", (16, 16)).save(photos / ".hidden" / "a.png")
    model = ("--model", str(trained), "--json")
    by_folder = mixer("predict", str(photos), *model)
    by_name = mixer("predict", *map(str, files), *model)
    monkeypatch.setattr("sys.stdin", listing("".join(f"{path}\n" for path in files).encode()))
    by_list = mixer("predict", "-", *model)
    assert by_folder == by_name == by_list and by_folder[0] == 0
    assert [row["file"] for row in json.loads(by_folder[1])] == [str(path) for path in files]


def test_json_is_what_the_predictor_says(mixer, trained, photos):
    files = sorted(photos.rglob("*.png"))[:3]
    code, out, _ = mixer("predict", *map(str, files), "--model", str(trained), "--json")
    expected = [
        {
            "file": str(found.path),
            "classes": [{"name": name, "probability": p} for name, p in found.classes],
        }
        for found in predict_files(load(trained), files)
    ]
    assert code == 0 and json.loads(out) == expected


def test_a_broken_file_among_others_is_an_entry_with_an_error(mixer, trained, photos):
    words = ("predict", str(photos), "--model", str(trained), "--json")
    whole = json.loads(mixer(*words)[1])
    (photos / "dark" / "05.png").write_bytes(b"nothing")
    code, out, err = mixer(*words)
    rows = json.loads(out)
    assert code == 1 and [row["file"] for row in rows] == [row["file"] for row in whole]
    assert rows[:5] + rows[6:] == [
        {"file": row["file"], "classes": [
            {"name": one["name"], "probability": pytest.approx(one["probability"], rel=1e-4)}
            for one in row["classes"]
        ]}
        for row in whole[:5] + whole[6:]
    ]  # fmt: skip
    assert set(rows[5]) == {"file", "error"} and "dark/05.png" in rows[5]["error"]
    assert err.splitlines() == [f"mixer: error: {rows[5]['error']}",
                                "mixer: 1 of 40 files cannot be used."]  # fmt: skip


def test_a_list_goes_on_after_a_missing_file(mixer, trained, here, monkeypatch):
    for name in ("a.png", "c.png"):
        Image.new("L", (16, 16), 200).save(here / name)
    monkeypatch.setattr("sys.stdin", listing(b"a.png\nb.png\nc.png\n"))
    code, out, err = mixer("predict", "-", "--model", str(trained))
    assert code == 1 and [line.split()[0] for line in out.splitlines()] == ["a.png", "c.png"]
    assert "b.png: No such file" in err


def test_on_a_terminal_errors_have_a_line_of_their_own(mixer, trained, here, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (16, 16), 200).save(here / name)
    (here / "b.png").write_bytes(b"nothing")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    words = ("predict", "a.png", "b.png", "c.png", "--model", str(trained), "--json")
    code, out, _ = mixer(*words)
    said = terminal.getvalue()
    assert code == 1 and len(json.loads(out)) == 3 and "images: 1 of 3" in said
    drawn = said.split("\r\x1b[K")
    (error,) = (one for one in drawn if "mixer: error" in one)
    assert error.startswith("mixer: error: Cannot use the image b.png") and error[-1] == "\n"
    assert not any("images:" in one and "\n" in one for one in drawn)
    assert drawn[-1] == "mixer: 1 of 3 files cannot be used.\n"


def test_an_empty_list_is_bad_input(mixer, trained, monkeypatch):
    monkeypatch.setattr("sys.stdin", listing(b"\n\r\n"))
    code, out, err = mixer("predict", "-", "--model", str(trained), "--json")
    assert code == 2 and out == "" and "standard input is empty" in err


def test_options_are_called_as_they_are_written(mixer, photos):
    for option in ("--top", "--batch-size"):
        code, out, err = mixer("predict", str(photos), option, "0")
        assert (
            code == 2
            and out == ""
            and err == f"mixer: error: {option} must be at least 1, found 0.\n"
        )


def test_nothing_but_broken_files_is_bad_input(mixer, trained, here):
    for name in ("a.png", "b.png"):
        (here / name).write_bytes(b"nothing")
    code, out, err = mixer("predict", "a.png", "b.png", "--model", str(trained))
    assert code == 2 and out == "" and "2 of 2 files cannot be used" in err


def test_the_only_file_is_bad_input(mixer, trained, here):
    (here / "a.png").write_bytes(b"nothing")
    code, out, err = mixer("predict", "a.png", "--model", str(trained))
    assert code == 2 and out == "" and err.count("mixer:") == 1 and "a.png" in err
    code, out, _ = mixer("predict", "a.png", "--model", str(trained), "--json")
    (row,) = json.loads(out)
    assert code == 2 and row["file"] == "a.png" and "a.png" in row["error"]


def test_names_that_are_not_utf_8(mixer, trained, here, monkeypatch):
    good, bad = os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"broken\xe9.png")
    Image.new("L", (16, 16), 200).save(here / "good.png")
    (here / "good.png").rename(here / good)
    (here / bad).write_bytes(b"nothing")
    for words in (("predict", "-"), ("predict", "-", "--json")):
        monkeypatch.setattr("sys.stdin", listing(b"caf\xe9.png\nbroken\xe9.png\n"))
        code, out, err = mixer(*words, "--model", str(trained))
        out.encode()
        assert code == 1 and "caf" in out and "broken" in err


def test_table_is_aligned_and_short_with_top(mixer, trained, here):
    for name in ("a.png", "longer-name.png"):
        Image.new("L", (16, 16), 200).save(here / name)
    words = ("predict", "a.png", "longer-name.png", "--model", str(trained))
    code, out, _ = mixer(*words)
    first, second = out.splitlines()
    assert code == 0 and first.index(" %") == second.index(" %")
    assert "dark" in first and "light" in first
    assert mixer(*words, "--top", "1")[1].count("%") == 2


@pytest.mark.parametrize("model", ["zoo:fashion-demo", "fashion-demo.onnx"])
def test_the_fastest_backend_is_found_once(model, mixer, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert mixer("export", "zoo:fashion-demo")[0] == 0
    image = str(repository / "examples/fashion/ankle-boot.png")
    words = ("predict", image, "--model", model, "--backend", "auto", "--top", "1")
    (code, out, err), second = mixer(*words), mixer(*words)
    assert code == 0 and "Ankle boot" in out
    assert "is fastest here, once" in err and "single images: " in err and "several: " in err
    assert second == (0, out, "")  # nothing is measured again
    assert "is fastest here" in mixer(*words, "--again")[2]
    for more in ((), ("--precision", "float32")):
        code, _, err = mixer(*words[:4], "--again", *more)
        assert code == 2 and "leave --again out" in err
