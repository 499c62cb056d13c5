"""A model's features of splits, for probes: from the user's cache or computed now."""

import sys
from typing import TYPE_CHECKING

from mixerkit.cli.broken import broken_ones_named
from mixerkit.cli.counting import Counting
from mixerkit.cli.images import Images
from mixerkit.cli.progress import Console

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mixerkit.data.sources import ImageSplit
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess


class Features:
    """`kept` and `computed` count the images whose features came out of the cache, and which were
    looked at. A `batch_size` of 0 is found; without a `cache` none are taken from it or kept."""

    def __init__(
        self,
        model: "MlpMixer",
        preprocess: "Preprocess",
        images: Images,
        batch_size: int,
        cache: bool,
    ) -> None:
        from mixerkit.device import device_here
        from mixerkit.evaluation.feature_cache import checksum_of

        self.model, self.console = model.to(device_here()), Console(sys.stderr)
        self.preprocess, self.images, self.batch_size = preprocess, images, batch_size
        self.weights = checksum_of(model) if cache else ""
        self.kept = self.computed = 0

    def of(self, split: "ImageSplit") -> "np.ndarray":
        """float32 [N, C] of all images of a split."""
        from mixerkit.evaluation.feature_cache import (
            features_folder,
            kept_or_computed,
            key_of,
            names_of,
        )

        if not self.weights:
            found, kept = self._computed(split), 0
        else:
            found, kept = kept_or_computed(
                features_folder(),
                key_of(self.weights, self.preprocess, split.name),
                names_of(split),
                lambda missing: self._computed(split.subset(missing)),
                self.console.say,
            )
        self.kept += kept
        self.computed += len(split) - kept
        return found.numpy()

    def _computed(self, split: "ImageSplit") -> "Tensor":
        from mixerkit.cli.measuring import in_batches
        from mixerkit.data.loader import EvaluationLoader
        from mixerkit.evaluation.features import features_of

        watch = Counting(self.console, f"features of {split.name}", len(split))

        def attempt(batch_size: int) -> "Tensor":
            loader = EvaluationLoader(
                split,
                self.preprocess,
                batch_size=batch_size,
                workers=self.images.workers,
                memory=0.0,  # no image is asked for twice
                patience=self.images.patience,
            )
            return features_of(self.model, loader, watch)

        with broken_ones_named(split, self.preprocess, self.images):
            return in_batches(self.model, self.batch_size, attempt)
