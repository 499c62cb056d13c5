"""How much of a set is made."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Amount:
    """The first `classes` of a set (all, where it has fewer), and images of each for training and
    for testing, and for validation as many as for testing. `side`: pixels of a photograph."""

    classes: int = 10
    train: int = 20
    test: int = 5
    side: int = 64
    seed: int = 0

    def splits(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels for training and for testing, of a set with so many classes, int64 [N] each, in an
        order of their own."""
        random = np.random.default_rng(self.seed)
        every = np.arange(min(self.classes, classes))
        train, test = (random.permutation(every.repeat(n)) for n in (self.train, self.test))
        return train, test
