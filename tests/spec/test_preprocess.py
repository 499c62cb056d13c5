"""Preprocessing that cannot be meant is refused."""

import pytest

from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess

WRONG = {
    "mean needs 1 number or one for each of the 3 channels, found 2": dict(mean=(0.1, 0.2)),
    "std needs 1 number or one for each of the 1 channels": dict(channels=1, std=(1, 1, 1)),
    "std must be positive": dict(std=(0.0,)),
    "resize_to must be 0 or at least the image side of 224 px, found 200": dict(resize_to=200),
    "at least the image side of 64 px": dict(image_size=(32, 64), resize_to=48),
    "image_size must be a positive whole number": dict(image_size=0),
    "channels must be a whole number": dict(channels=0),
    "resize must be one of .* Did you mean 'shortest'": dict(resize="shortes"),
    "interpolation must be one of": dict(interpolation="lanczos"),
}


@pytest.mark.parametrize("message", WRONG)
def test_impossible_preprocessing_is_refused(message):
    with pytest.raises(UserError, match=message):
        Preprocess(**WRONG[message])


def test_lists_become_tuples_and_sizes_pairs():
    found = Preprocess(image_size=[24, 32], mean=[0.5], class_names=["a", "b"])
    assert found == Preprocess(image_size=(24, 32), class_names=("a", "b"))
    assert found.image_hw == (24, 32)
    hash(found)
