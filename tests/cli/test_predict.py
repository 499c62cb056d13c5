import io
import json

from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.inference.predictor import predict_files


def test_files_folders_and_a_list_name_the_same_images(mixer, trained, photos, monkeypatch):
    files = sorted(photos.rglob("*.png"))
    (photos / "notes.txt").write_text("not an image")
    (photos / ".hidden").mkdir()
    Image.new("L", (16, 16)).save(photos / ".hidden" / "a.png")
    model = ("--model", str(trained), "--json")
    by_folder = mixer("predict", str(photos), *model)
    by_name = mixer("predict", *map(str, files), *model)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{path}\n" for path in files)))
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


def test_json_stays_whole_when_a_file_is_broken(mixer, trained, photos):
    (photos / "dark" / "05.png").write_bytes(b"nothing")
    code, out, err = mixer("predict", str(photos), "--model", str(trained), "--json")
    assert code == 2 and "dark/05.png" in err and len(json.loads(out)) == 5


def test_table_is_aligned_and_short_with_top(mixer, trained, here):
    for name in ("a.png", "longer-name.png"):
        Image.new("L", (16, 16), 200).save(here / name)
    words = ("predict", "a.png", "longer-name.png", "--model", str(trained))
    code, out, _ = mixer(*words)
    first, second = out.splitlines()
    assert code == 0 and first.index(" %") == second.index(" %")
    assert "dark" in first and "light" in first
    assert mixer(*words, "--top", "1")[1].count("%") == 2
