"""How accuracy falls when images are spoiled, when patches change places, and at other sizes.

Every condition is measured on the same images, so that a drop is a mean of differences.

    N images   B images in a batch   I image channels   H, W height and width   K classes
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixerkit.data.augment import normalise
from mixerkit.data.decode import canvas_size, fit
from mixerkit.data.draws import uniforms
from mixerkit.data.pixels import Pixels, Reading
from mixerkit.data.splits import ImageSplit
from mixerkit.evaluation.accuracy import measure, probabilities, right
from mixerkit.evaluation.conditions import Condition, at_size
from mixerkit.evaluation.corruption import corrupt, moved
from mixerkit.evaluation.interval import half_width_of_changes, interval_of_share
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess

Row = dict[str, Any]
SUBSET = 103  # a stream of random numbers that nothing else draws from


def drawn(split: int, count: int, seed: int) -> np.ndarray:
    """Which `count` images of a split of so many are measured (0: all), in order: int64."""
    draws = uniforms(seed, 0, np.arange(split), 1, SUBSET)[:, 0]
    return np.sort(np.argsort(draws, kind="stable")[: count or None])


class Chosen:
    """The images at `indices` of a split, at a model's own size. `seed` fixes what is random in
    spoiling them.

    `found_hw`: (height, width) in which they were stored, once they
    were read.
    """

    def __init__(
        self,
        split: ImageSplit,
        preprocess: Preprocess,
        indices: np.ndarray,
        *,
        seed: int,
        memory: float,
        reading: Reading,
    ) -> None:
        self.indices = indices
        self.split, self.seed, self.reading = split.subset(self.indices), seed, reading
        self.found_hw: list[tuple[int, int]] = []
        if split.images is not None:
            self.found_hw = [(split.images.shape[1], split.images.shape[2])]

        def fit_and_note(image: Image.Image, wanted: Preprocess) -> np.ndarray:
            self.found_hw.append((image.height, image.width))
            return fit(image, wanted)

        prepare = fit if split.images is not None else fit_and_note
        self.pixels = Pixels(self.split, preprocess, prepare, memory)

    def __len__(self) -> int:
        return len(self.indices)

    def enlarged(self, preprocess: Preprocess) -> float:
        """The share of the images that are enlarged for a model, which shows it nothing more."""
        counts = Counter(self.found_hw)
        larger = 0
        for found, count in counts.items():
            height, width = canvas_size(found, preprocess)
            larger += count if height > found[0] or width > found[1] else 0
        return larger / counts.total()

    def at(self, preprocess: Preprocess, condition: Condition) -> Pixels:
        """The pixels for a condition: those of another size are not kept."""
        if condition.enlargement is None:
            return self.pixels
        return Pixels(self.split, preprocess, fit, memory=0)


def measure_under(
    model: MlpMixer,
    chosen: Chosen,
    asked: Sequence[Condition],
    *,
    batch_size: int,
    watch: Callable[[int], None] = lambda done: None,
) -> Iterator[Row]:
    """A row for each condition, of which the first must be "clean"; `watch` is told how many images
    are done over all of them.

    Shares in [0, 1]: `top1` with the interval that `mixer evaluate` gives it, and by what that was
    found; `drop` (how much lower than clean; negative when higher) and half of its 95 % interval,
    None of a single image; `enlarged`.
    """
    assert asked[0].kind == "clean"
    clean_N = np.zeros(0)
    for number, condition in enumerate(asked):
        done = number * len(chosen)
        other = at_size(model, condition)
        assert other.preprocess
        batches = _batches(other, chosen, condition, batch_size, partial(_from, done, watch))
        p_NK, labels_N = probabilities(other, batches)
        found = measure(p_NK, labels_N, chosen.split.class_names)
        right_N = right(p_NK, labels_N)
        clean_N = clean_N if number else right_N
        interval, by = interval_of_share(right_N)
        yield {
            "kind": condition.kind,
            "severity": condition.severity,
            "strength": condition.strength,
            "image_size": list(condition.image_hw),
            "enlargement": condition.enlargement,
            "moved": _moved(condition, model),
            "enlarged": chosen.enlarged(other.preprocess),
            "top1": found.top1,
            "top1_interval": interval,
            "top1_interval_by": by,
            "drop": float((clean_N - right_N).mean()),
            "drop_half_width": (
                half_width_of_changes((clean_N - right_N).tolist()) if number else 0.0
            ),
        }


def _moved(condition: Condition, model: MlpMixer) -> int:
    """How many patches change places."""
    shuffles = condition.kind == "shuffle"
    return moved(model.config.num_patches, condition.strength) if shuffles else 0


def _from(done: int, watch: Callable[[int], None], more: int) -> None:
    watch(done + more)


def _batches(
    model: MlpMixer,
    chosen: Chosen,
    condition: Condition,
    batch_size: int,
    watch: Callable[[int], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The chosen images under a condition: float32 [B, I, H, W] and labels int64 [B]."""
    preprocess, patch_hw = model.preprocess, model.config.patch_hw
    assert preprocess
    numbers = np.split(np.arange(len(chosen)), range(batch_size, len(chosen), batch_size))
    for places, images, _ in chosen.at(preprocess, condition).batches(numbers, chosen.reading):
        spoiled = [
            _spoiled(image_IHW, condition, int(chosen.indices[place]), chosen.seed, patch_hw)
            for place, image_IHW in zip(places, images, strict=True)
        ]
        labels_B = torch.from_numpy(chosen.split.labels[places])
        yield normalise(torch.from_numpy(np.stack(spoiled)), preprocess), labels_B
        watch(int(places[-1]) + 1)


def _spoiled(
    image_IHW: np.ndarray, condition: Condition, index: int, seed: int, patch_hw: tuple[int, int]
) -> np.ndarray:
    if condition.kind in ("clean", "size"):
        return image_IHW
    image_HWI = corrupt(
        image_IHW.transpose(1, 2, 0),
        condition.kind,
        condition.severity,
        index=index,
        seed=seed,
        patch_hw=patch_hw,
    )
    return image_HWI.transpose(2, 0, 1)
