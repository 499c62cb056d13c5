"""What a run remembers of the images that it leaves out, and when it stops."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mixerkit.data.quarantine import NAMES_SHOWN, Quarantine, Unreadable, shown
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import RunFailed


def split(count: int, name: str = "photos train") -> ImageSplit:
    paths = tuple(Path(f"{i:03}.png") for i in range(count))
    return ImageSplit(name, ("a", "b"), np.arange(count) % 2, None, paths)


def broken(*indices: int) -> list[Unreadable]:
    return [Unreadable(i, Path(f"{i:03}.png"), "it is cut short.") for i in indices]


def test_each_is_logged_once_and_splits_are_counted_apart():
    rows = []
    quarantine = Quarantine(0.02, rows.append)
    train, test = split(100), split(100, "photos test")
    quarantine.add(train, broken(7, 3))
    quarantine.add(train, broken(3, 7))
    quarantine.add(test, broken(7))
    quarantine.add(train, [])
    assert [(row["split"], row["index"]) for row in rows] == [
        ("photos train", 7), ("photos train", 3), ("photos test", 7),
    ]  # fmt: skip
    assert rows[0] == {
        "split": "photos train", "index": 7, "file": "007.png", "reason": "it is cut short.",
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 10, 99, 100, 101, 1000])
@pytest.mark.parametrize("percent", [0, 1, 7, 14, 29, 57, 99])
def test_the_share_is_rounded_up_and_exact(count, percent):
    allowed = -(-percent * count // 100)  # in whole numbers
    quarantine = Quarantine(percent / 100, lambda row: None)
    quarantine.add(split(count), broken(*range(allowed)))
    with pytest.raises(RunFailed, match=rf"{allowed + 1} images of photos train cannot be used"):
        quarantine.add(split(count), broken(allowed))


def test_too_many_are_logged_before_the_run_stops_and_the_first_are_named():
    rows = []
    with pytest.raises(RunFailed) as stop:
        Quarantine(0.01, rows.append).add(split(200), broken(*range(9)))
    assert len(rows) == 9
    for part in ("9 images", "allows 2 of 200", "000.png (it is cut short), 001.png", "004.png"):
        assert part in str(stop.value)
    assert "005.png" not in str(stop.value)


def test_a_run_that_goes_on_counts_and_logs_as_if_it_had_not_stopped():
    rows = []
    Quarantine(0.03, rows.append).add(split(100), broken(1, 2))
    later = []
    quarantine = Quarantine(0.03, later.append)
    quarantine.recall(rows, lambda split, index: True)
    quarantine.add(split(100), broken(2, 1, 3))
    assert [row["index"] for row in later] == [3]
    with pytest.raises(RunFailed, match=r"4 images.*001\.png"):
        quarantine.add(split(100), broken(4))


def test_images_that_are_whole_again_do_not_count_any_more():
    rows = []
    Quarantine(0.03, rows.append).add(split(100), broken(1, 2, 3))
    quarantine, asked = Quarantine(0.03, rows.append), []

    def is_broken(name: str, index: int) -> bool:
        asked.append((name, index))
        return index == 2

    quarantine.recall(list(rows), is_broken)
    assert asked == [("photos train", 1), ("photos train", 2), ("photos train", 3)]
    quarantine.add(split(100), broken(2, 4, 5))
    with pytest.raises(RunFailed, match="4 images"):
        quarantine.add(split(100), broken(1))


def test_a_row_of_an_image_that_is_not_there_is_passed_over(capsys):
    rows: list[dict] = []
    Quarantine(0.03, rows.append).add(split(100), broken(1, 2))
    rows.insert(1, rows[0] | {"index": 100})
    quarantine, images = Quarantine(0.03, rows.append), split(100).paths
    quarantine.recall(list(rows), lambda name, index: bool(images[index]))
    assert list(quarantine.found["photos train"]) == [1, 2]
    assert capsys.readouterr().err == (
        "warning: photos train has no image 100: what is known of it is passed over.\n"
    )


def test_a_class_of_which_nothing_is_left_is_told_once():
    said = []
    quarantine = Quarantine(0.9, lambda row: None, said.append)
    quarantine.add(split(6), broken(0, 2, 3))
    assert said == []
    quarantine.add(split(6), broken(4))
    quarantine.add(split(6), broken(4, 5))
    assert len(said) == 1 and "the class 'a' in photos train" in said[0]


def test_a_class_that_was_lost_before_is_told_again_when_the_run_goes_on():
    rows, said = [], []
    Quarantine(0.9, rows.append).add(split(6), broken(0, 2, 4))
    quarantine = Quarantine(0.9, rows.append, said.append)
    quarantine.recall(list(rows), lambda name, index: True)
    quarantine.add(split(6), [])
    assert len(said) == 1


def test_names_that_are_not_utf_8_can_be_written():
    name = os.fsdecode(b"caf\xe9.png")
    row = Unreadable(0, Path(name), "broken").row()
    written = json.dumps(row, ensure_ascii=False).encode()
    assert json.loads(written)["file"] == "caf\\udce9.png"


def test_a_message_shows_no_more_than_a_few():
    assert shown(broken(1)) == "001.png (it is cut short)"
    assert shown(broken(*range(NAMES_SHOWN))).count(".png") == NAMES_SHOWN
    assert shown(broken(*range(NAMES_SHOWN + 1))).endswith("004.png (it is cut short), …")
