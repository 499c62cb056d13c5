"""Sizes of batches that are found, and what several processes found put together."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.cli.measuring import Measured, _of_all, in_batches
from mixerkit.data.quarantine import Unreadable
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import RunFailed, UserError
from mixerkit.evaluation.passes import Passes, batch_for
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.training.world import World

TINY = MixerConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=2, width=6, depth=1, token_width=3,
    channel_width=5,
)  # fmt: skip


def tried_until(room: int, batch_size: int) -> tuple[list[int], str]:
    """The sizes that are tried where there is room for so many images, and what is said."""
    sizes = []

    def attempt(size: int) -> None:
        sizes.append(size)
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    try:
        in_batches(MlpMixer(TINY), batch_size, attempt)
    except RunFailed as error:
        return sizes, str(error)
    return sizes, ""


def test_a_size_is_found_and_one_that_was_given_is_kept() -> None:
    first = batch_for(TINY)
    assert tried_until(first, 0) == ([first], "")
    assert tried_until(first // 4, 0) == ([first, first // 2, first // 4], "")
    assert tried_until(16, 16) == ([16], "")


def test_short_memory_names_a_size_that_was_not_tried() -> None:
    sizes, says = tried_until(15, 16)
    assert sizes == [16] and "Give a --batch-size below 16." in says
    for batch_size in (0, 1):
        sizes, says = tried_until(0, batch_size)
        assert sizes[-1] == 1 and "a single image" in says and "--batch-size" not in says


class Gathered(World):
    """The first of several processes, which hears what is given."""

    def __init__(self, parts: list[Measured]) -> None:
        super().__init__(0, len(parts))
        object.__setattr__(self, "parts", parts)

    def first_hears(self, own):
        return self.parts

    def agreed(self):
        return nullcontext()


SPLIT = ImageSplit("photos", ("a", "b"), np.arange(7) % 2, None, (Path("x.png"),) * 7)
P_NK = torch.rand(7, 2)


def part(indices: list[int], broken: list[int], seconds: float = 1.0) -> Measured:
    """What a process found of its images."""
    rows = torch.tensor(indices, dtype=torch.int64)
    passes = Passes(P_NK[rows], rows, 4, seconds, seconds / 10)
    unreadable = [Unreadable(i, Path(f"{i}.png"), "cut short") for i in broken]
    return Measured(passes, np.array(indices, np.int64), unreadable)


def of_all(*parts: Measured) -> Measured | None:
    return _of_all(Gathered(list(parts)), SPLIT, parts[0])


def test_of_several_processes_everything_is_in_the_order_of_the_split() -> None:
    """Seven images among three, of which two cannot be used."""
    found = of_all(part([0, 3], [6]), part([1], [4], seconds=3.0), part([2, 5], []))
    assert found is not None and found.usable.tolist() == [0, 1, 2, 3, 5]
    assert found.passes.labels.tolist() == [0, 1, 2, 3, 5]
    assert torch.equal(found.passes.probabilities, P_NK[[0, 1, 2, 3, 5]])
    assert [one.index for one in found.unreadable] == [4, 6]
    assert found.passes.seconds == 3.0 and found.passes.waiting == pytest.approx(0.5 / 3)
    assert found.passes.images_per_second == pytest.approx(5 / 3)


def test_a_process_may_have_no_images() -> None:
    found = of_all(part([0], []), part([1], []), part([], []))
    assert found is not None and found.usable.tolist() == [0, 1]


def test_no_usable_image_in_any_process_is_said_with_what_is_broken() -> None:
    with pytest.raises(UserError, match=r"None of the 7 images of photos.*1\.png \(cut short\)"):
        of_all(part([], [3]), part([], [1]))


def test_the_others_have_nothing_and_one_that_is_alone_has_its_own() -> None:
    assert _of_all(Gathered([]), SPLIT, part([0], [])) is None
    own = part([0, 1], [])
    found = _of_all(World(), SPLIT, own)
    assert found is own
