"""Images for 8 bits: which are taken, and whether there are enough."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixerkit.data.decode import BrokenImage
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.errors import UserError
from mixerkit.inference.samples import divided, parted, samples_of, spread, suffice, usable
from tests.inference.small_model import PREPROCESS, pixels


def split(name: str, images_NIHW: np.ndarray) -> ImageSplit:
    labels = np.arange(len(images_NIHW)) % 5
    return ImageSplit(name, tuple("abcde"), labels, images_NIHW.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("held", [0, 1, 32, 99, 100, 250])
def test_what_suffices_can_be_parted_and_nothing_else(held: int) -> None:
    """Of 132 images 32 find ranges and 100 judge; validation images only judge."""
    enough = []
    for size in range(20, 301):
        parts = np.zeros((size, 1, 2, 2), np.uint8), np.zeros((held, 1, 2, 2), np.uint8)
        try:
            found = parted(*parts)
        except UserError:
            assert not suffice(size, held)
        else:
            assert suffice(size, held) and len(found.learn) + len(found.judge) == size + held
            assert len(found.learn) >= 32 and len(found.judge) >= max(100, held)
            enough.append(size)
    assert enough[0] == max(32, 132 - held)


def test_too_few_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"found 131 in all: give more images"):
        parted(pixels(131))
    with pytest.raises(UserError, match=r"found 140 in all, 120 of them for validation, which"):
        parted(pixels(20), pixels(120))


def test_images_of_each_split() -> None:
    """At most so many of the training and as many of the validation images, spread over all."""
    train, held = pixels(240), 255 - pixels(220)
    splits = Splits(split("train", train), split("validation", held), None, "")
    found = samples_of(splits, PREPROCESS, 110)
    assert np.array_equal(found.learn, train[spread(240, 110)])
    assert np.array_equal(found.judge, held[spread(220, 110)])


def test_a_source_for_testing_only_has_images_too() -> None:
    test = split("test", pixels(140))
    splits = Splits(test.subset([]), None, test, "")
    assert divided(splits) == (test, None)
    assert len(samples_of(splits, PREPROCESS, 512).learn) == 40
    both = replace(splits, validation=test.subset(range(9)))
    every, held = divided(both)
    assert len(every) == 9 and held is None
    train = replace(both, train=test)
    assert divided(train) == (test, both.validation)


def test_some_broken_images_are_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One of however many, or one of a hundred."""
    seen: list[tuple[int, int]] = []

    def load(number: int) -> np.ndarray:
        if number in broken:
            raise BrokenImage("it is cut.", Path(f"{number}.png"))
        return np.full((1, 2, 2), number, np.uint8)

    for count, broken in ((10, {3}), (200, {5, 7})):
        found = usable(load, range(count), lambda *done: seen.append(done))
        assert sorted({*range(count)} - set(found[:, 0, 0, 0])) == sorted(broken)
        assert seen[0] == (0, count) and seen[-1] == (count, count) and len(seen) == count + 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(broken) and all("It is left out." in line for line in said)
        seen.clear()
    for count, broken in ((10, {3, 4}), (200, {5, 7, 9}), (1, {0})):
        with pytest.raises(BrokenImage, match=f"{min(broken)}.png"):
            usable(load, range(count))


def test_spread() -> None:
    assert spread(10, 5) == [1, 3, 5, 7, 9] and spread(3, 7) == [0, 1, 2]
    assert spread(60_000, 2) == [15_000, 45_000]
