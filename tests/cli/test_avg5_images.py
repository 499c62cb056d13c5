"""`mixer evaluate --protocol avg5` on images that are broken, or change while it is at work."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixerkit.checkpoint.lock import LOCK_PATIENCE, Lock
from mixerkit.cli.main import main
from mixerkit.study import transfer_broken, transfer_plan
from mixerkit.study.transfer_images import FILE, Known, check_images
from tests.miniature.pictures import write_class_folders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """36 images for training and 6 for the test, of three classes."""
    write_class_folders(tmp_path / "photos" / "train", 3, 12, 32, 0)
    write_class_folders(tmp_path / "photos" / "val", 3, 2, 32, 1)
    return tmp_path / "photos"


def words(photos: Path, *more: str, tasks: str = "a") -> list[str]:
    """The command on tasks that all have the same images."""
    file = photos.parent / "mine.yaml"
    each = [f"{name}: {{data: {photos}, steps: 2, rates: [0.01, 0.02]}}" for name in tasks]
    file.write_text(f"tasks: {{{', '.join(each)}}}\n")
    folder = str(photos.parent / "done")
    chosen = () if "--folder" in more else ("--folder", folder)
    return ["evaluate", "zoo:fashion-demo", "--protocol", "avg5", "--suite", str(file), *chosen,
            *more]  # fmt: skip


def spoil(folder: Path, count: int) -> list[Path]:
    """The first files of every class in turn, cut short."""
    classes = [sorted(each.iterdir()) for each in sorted(folder.iterdir())]
    found = [path for files in zip(*classes, strict=True) for path in files][:count]
    for path in found:
        path.write_bytes(path.read_bytes()[:200])
    return found


def test_broken_test_images_are_said_of_all_tasks_before_anything_is_trained(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = spoil(photos / "val", 2)
    for more in ((), ("--dry-run",)):
        assert main(words(photos, *more, tasks="ab")) == 2
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if "2 of 6 test images cannot be used" in line]
        assert [line.split(":")[0] for line in said] == ["a", "b"]
        assert all(str(first) in line and str(second) in line for line in said)
        assert all("--skip-broken measures the others" in line for line in said)
    assert not (photos.parent / "done").exists()


def test_test_images_that_are_left_out_stand_beside_the_figure(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken,) = spoil(photos / "val", 1)
    assert main(words(photos, "--skip-broken")) == 0
    out = capsys.readouterr().out
    assert f"Left out: a: 1 of 6 test images cannot be used\n  {broken}: " in out
    assert main(words(photos, "--skip-broken", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["unreadable"]
    assert (row["task"], row["kind"], row["file"]) == ("a", "test", str(broken))
    assert found["rows"][0]["unreadable"] == {"test": 1, "training": 0}
    assert found["rows"][0]["test_images"] == 5
    assert found["rows"][0]["test_accuracy"] in [pytest.approx(k / 5) for k in range(6)]


def test_few_training_images_are_left_out_and_named_more_are_asked_about(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken,) = spoil(photos / "train", 1)
    assert main(words(photos)) == 0
    out = capsys.readouterr().out
    assert f"Left out: a: 1 of 36 training images cannot be used\n  {broken}: " in out
    spoil(photos / "train", 9)
    other = ("--folder", str(photos.parent / "other"))
    assert main(words(photos, *other)) == 2
    message = capsys.readouterr().err
    assert "training images cannot be used" in message and "(1% may be left out)" in message
    assert "--skip-broken works with the others" in message and "data." not in message
    assert main(words(photos, "--skip-broken", *other)) == 0
    assert "Left out: a: 9 of 36 training images" in capsys.readouterr().out


def test_more_than_half_is_not_left_out(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(photos / "val", 4)
    assert main(words(photos, "--skip-broken")) == 2
    assert "4 of 6 test images cannot be used" in (message := capsys.readouterr().err)
    assert "no more than half" in message


def test_what_a_sample_did_not_show_withholds_the_figure(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the same trials give it where it is asked for without those images."""
    monkeypatch.setattr(transfer_broken, "MOST_OPENED", 2)
    broken = photos / "val" / "c1" / "2.jpg"  # the first and the last one are opened
    broken.write_bytes(b"nothing")
    assert main(words(photos, "--json")) == 1
    printed = capsys.readouterr()
    row, *average = json.loads(printed.out)["rows"]
    assert row["test_accuracy"] is None and not average
    assert "withheld: a: 1 of 6 test images cannot be used" in printed.err
    assert str(broken) in printed.err and "--skip-broken shows the figure" in printed.err
    assert "--again" not in printed.err
    assert "2 of 6 test images were opened" in printed.err
    assert main(words(photos, "--skip-broken")) == 0
    out = capsys.readouterr().out
    assert "Left out: a: 1 of 6 test images" in out and "withheld" not in out
    assert "training on everything: 1 trial, 1 done" in out


def longer(photos: Path) -> None:
    """A file gets another size, the same picture."""
    path = photos / "val" / "c1" / "2.jpg"
    path.write_bytes(path.read_bytes() + b"\0" * 9)


def one_more(photos: Path) -> None:
    """A file is added."""
    first = photos / "val" / "c1" / "2.jpg"
    (photos / "val" / "c1" / "7.jpg").write_bytes(first.read_bytes())


def other_class(photos: Path) -> None:
    """The same file in the folder of another class."""
    (photos / "train" / "c1" / "13.jpg").rename(photos / "train" / "c2" / "99.jpg")


def renamed(photos: Path) -> None:
    """A class has another name."""
    for split in ("train", "val"):
        (photos / split / "c2").rename(photos / split / "c3")


def same_size(photos: Path) -> None:
    """Other pixels in as many bytes."""
    path = photos / "val" / "c1" / "2.jpg"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (longer, "b, test images: c1/2.jpg has "),
        (one_more, "b, test images: 6 there and 7 now; only now: c1/7.jpg"),
        (other_class, "c2/99.jpg"),
        (renamed, "b, test images: other names; only there: c2/4.jpg, c2/5.jpg; only now: c3/4"),
        (same_size, "b, test images: 1 of 6 compared have another content"),
    ],
)
def test_a_folder_is_for_the_images_that_it_was_begun_with(
    change, says: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No figure of the images as they were is shown as one of those that are here now."""
    assert main(words(photos, "--tasks", "b", tasks="ab")) == 0
    assert main(words(photos, "--tasks", "b", tasks="ab")) == 0  # nothing has changed
    change(photos)
    capsys.readouterr()
    assert main(words(photos, tasks="ab")) == 2
    message = capsys.readouterr().err
    assert says in message and "another --folder" in message
    assert "a, test" not in message  # that task was not begun
    elsewhere = ("--folder", str(photos.parent / "other"))
    assert main(words(photos, "--tasks", "b", *elsewhere, tasks="ab")) == 0


def test_other_settings_are_not_told_as_other_images(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though other images are held out by them."""
    assert main(words(photos)) == 0
    file = photos.parent / "mine.yaml"
    given = words(photos)
    file.write_text(file.read_text().replace("steps: 2", "steps: 2, held_out: 0.3"))
    assert main(given) == 2
    message = capsys.readouterr().err
    assert "data.holdout is 0.1 there and 0.3 now" in message and "other images" not in message


def test_images_that_nothing_was_trained_on_may_change(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start that was broken off before the first trial binds the folder to nothing."""
    assert main(words(photos)) == 0
    for name in ("choose", "final"):
        shutil.rmtree(photos.parent / "done" / name)
    longer(photos)
    assert main(words(photos)) == 0  # and from now on it is for these
    one_more(photos)
    assert main(words(photos)) == 2
    assert "a, test images: 6 there and 7 now" in capsys.readouterr().err


def test_a_finished_folder_shows_its_table_and_nothing_is_written(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (photos.parent / "done").rglob("*")}

    assert main(words(photos, "--json")) == 0
    first = json.loads(capsys.readouterr().out)
    for lock in (photos.parent / "done").glob("**/lock"):
        lock.unlink()
    before = state()
    assert main(words(photos, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == first and state() == before


def test_only_what_was_left_out_of_the_figures_counts(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log of a run also names images that are whole again."""
    assert main(words(photos)) == 0
    image = photos / "val" / "c1" / "2.jpg"
    for run in (photos.parent / "done" / "final" / "runs").iterdir():
        row = {"split": "test", "index": 0, "file": str(image), "reason": "it was cut short"}
        with (run / "quarantine.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
    capsys.readouterr()
    assert main(words(photos, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["unreadable"] and found["rows"][0]["test_images"] == 6


def test_a_plan_reads_no_more_than_it_says(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums are for those who train."""

    def known_by(*_: object) -> Known:
        raise AssertionError("read")

    monkeypatch.setattr(transfer_plan, "known_by", known_by)
    assert main(words(photos, "--dry-run")) == 0
    with pytest.raises(AssertionError, match="read"):
        main(words(photos))


def test_who_is_started_beside_others_waits_for_their_notes(tmp_path: Path) -> None:
    """Longer than for a reader."""
    lock = Lock(tmp_path)
    with ThreadPoolExecutor(1) as other:
        noted = other.submit(check_images, tmp_path, {"a": {}}, {"a": "A"}, set)
        time.sleep(2 * LOCK_PATIENCE)
        assert not noted.done()
        lock.release()
        noted.result()
    assert json.loads((tmp_path / FILE).read_text()) == {"a": {}}


def test_a_split_without_any_usable_image_is_a_problem() -> None:
    """However few there are, and whatever was asked for."""
    from mixerkit.data.quarantine import Unreadable
    from mixerkit.study.transfer_broken import Broken

    for opened, broken, skip, problem in (
        (1, 1, True, True),
        (1, 1, False, True),
        (3, 2, True, True),
        (4, 2, True, False),
        (300, 3, False, False),
    ):
        found = tuple(Unreadable(i, f"{i}.png", "it is empty") for i in range(broken))
        one = Broken("held-out", opened, opened, found)
        assert bool(one.problem(0.01, skip)) is problem, one


def test_held_out_and_training_images_are_judged_together_as_in_the_end() -> None:
    """Two parts that each round up would allow more than the whole does when all is trained."""
    from mixerkit.data.quarantine import Unreadable
    from mixerkit.study.transfer_broken import TEST, TRAINING, Broken, as_in_the_end

    def broken(kind: str, count: int, bad: int) -> Broken:
        found = tuple(Unreadable(i, f"{kind}-{i}.png", "it is empty") for i in range(bad))
        return Broken(kind, count, count, found)

    looked = (broken(TRAINING, 270, 3), broken("held-out", 30, 1), broken(TEST, 50, 0))
    assert not any(one.problem(0.01, False) for one in looked)
    before = [one.problem(0.01, False) for one in as_in_the_end(looked)]
    after = broken(TRAINING, 300, 4).withheld(0.01, False)
    assert [bool(said) for said in before] == [False, True] and after
    assert "4 of 300 training images" in before[1] and "held-out-0.png" in before[1]
    none_left = (looked[0], broken("held-out", 1, 1), looked[2])
    assert "1 of 1 held-out" in as_in_the_end(none_left)[1].problem(0.01, True)
