"""How good the weights are that a run would keep now, and what it leaves behind at its end."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.quarantine import Quarantine
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.evaluation.accuracy import Accuracy, measure, probabilities
from mixerkit.evaluation.passes import Part, in_order
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.interrupt import Interrupt
from mixerkit.training.keep import describe_evaluation, figures, keep_model
from mixerkit.training.setup import evaluation_loader, preprocess_of
from mixerkit.training.sharding import divide_again, is_sharded, whole_model
from mixerkit.training.state import FiguresNotFinite, TrainingState


class Measuring:
    """Measures the averaged weights when the recipe has an average, else those of the step.

    A signal leaves a measurement with `Interrupted`; nothing is written before it is complete.
    Images that cannot be used are left out, and go to the quarantine.
    """

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        run: RunFolder,
        state: TrainingState,
        quarantine: Quarantine,
        interrupt: Interrupt,
    ) -> None:
        self.recipe, self.splits, self.run, self.state = recipe, splits, run, state
        self.quarantine, self.interrupt = quarantine, interrupt
        self.world = state.world
        self.validation: Accuracy | None = None
        self._usable: dict[str, np.ndarray] = {}
        self._loaders: dict[str, EvaluationLoader] = {}
        self._newest: tuple[int, Accuracy, Tensor] | None = None  # step, and held-out figures

    def validate(self) -> Accuracy | None:
        """Held-out accuracy now, measured once a step; None without held-out images."""
        split, step = self.splits.validation, self.state.step
        if split is None:
            return None
        if self._newest is None or self._newest[0] != step:
            self._newest = (step, *self._measure(split))
        self.validation = self._newest[1]
        return self.validation

    def forget(self) -> None:
        """The run went back: the state has other weights, also at the same step."""
        self._newest = self.validation = None

    def test(self) -> Accuracy | None:
        """Read the test split and describe what was found; where there is none, or it is not to be
        read, describe the held-out images."""
        validation = self.validate()
        if self.recipe.evaluate.test and self.splits.test:
            test, found = self._measure(self.splits.test)
            self._describe("test", test, found, self.splits.test)
            return test
        if validation and self._newest and self.splits.validation:
            self._describe("validation", *self._newest[1:], self.splits.validation)
        return None

    def keep(self, test: Accuracy | None) -> None:
        """Keep the final model with its figures: the run is then finished."""
        model = self.state.model
        if not isinstance(model, MlpMixer):
            return
        measured = {"validation": self.validate(), "test": test}
        known = {name: figures(found) for name, found in measured.items() if found}
        preprocess, step = preprocess_of(self.recipe, self.splits), self.state.step
        with self._kept_weights():
            model = whole_model(model)
            self.world.first_says(
                lambda: keep_model(self.run, self.recipe, model, preprocess, known, step)
            )

    def is_broken(self, name: str, index: int) -> bool:
        """Whether an image of the split called `name` cannot be used now."""
        split = next((one for one in self._splits() if one.name == name), None)
        return split is not None and self._loader(split).is_broken(index)

    def _splits(self) -> list[ImageSplit]:
        every = (self.splits.train, self.splits.validation, self.splits.test)
        return [split for split in every if split is not None]

    def _measure(self, split: ImageSplit) -> tuple[Accuracy, Tensor]:
        """Accuracy and probabilities [N, K] of the weights that would be kept now."""
        loader = self._loader(split)
        with self.world.agreed(), self._kept_weights():
            batches: Iterable[tuple[Tensor, Tensor]] = self.interrupt.between(loader)
            divided = is_sharded(self.state.model)
            if divided:
                batches = self._in_step(loader)
            shared = self.world.size > 1  # there may be fewer images than processes
            classes = len(self.splits.train.class_names) if shared else 0
            try:
                found, labels = probabilities(self.state.model, batches, classes, divided)
            finally:
                divide_again(self.state.model)
        usable, found, labels = self._of_all(loader, found, labels)
        self._usable[split.name] = usable

        def judge() -> Accuracy:
            if found.isfinite().all():
                return measure(found, labels, self.splits.train.class_names)
            step = self.state.step
            raise FiguresNotFinite(f"After step {step} the model's outputs are not finite.", step)

        return self.world.first_says(judge), found

    def _in_step(self, loader: EvaluationLoader) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a process's part, and empty ones until there are as many as any process
        has: through a divided model all go together."""
        given, failed = 0, None
        try:
            for batch in loader:
                given += 1
                yield batch
        except Exception as error:  # the others are on their way through the model
            failed = error
        size, parts = self.recipe.evaluate.batch_size, self.world.size
        largest_part = -(-len(loader.split) // parts)
        most = -(-largest_part // size)
        config = self.recipe.model
        nothing = torch.zeros(0, config.in_channels, *config.image_hw)
        for _ in range(most - given):
            yield nothing, torch.zeros(0, dtype=torch.int64)
        if failed:
            raise failed

    def _of_all(self, loader: EvaluationLoader, found_NK: Tensor, labels_N: Tensor) -> Part:
        """Which images of a split could be used, their probabilities and labels, in the order of
        the split: for the first process, of the images of all. What is broken goes to the
        quarantine of every process."""
        unreadable = [one for each in self.world.all_say(loader.unreadable) for one in each]
        with self.world.agreed():  # the first one writes them down
            self.quarantine.add(loader.split, sorted(unreadable, key=lambda one: one.index))
        own = (loader.usable, found_NK, labels_N)
        if self.world.size == 1 or not (parts := self.world.first_hears(own)):
            return own
        return in_order(parts)

    def _describe(self, name: str, accuracy: Accuracy, found: Tensor, split: ImageSplit) -> None:
        def describe() -> None:
            picture, usable = self._loader(split).picture, self._usable[split.name]
            self.run.save_evaluation(
                name, describe_evaluation(name, accuracy, found, split, usable, picture)
            )

        self.world.first_says(describe)

    def _loader(self, split: ImageSplit) -> EvaluationLoader:
        """One for each split, which keeps its decoded images."""
        if split.name not in self._loaders:
            part = (self.world.rank, self.world.size)
            self._loaders[split.name] = evaluation_loader(
                self.recipe, self.splits, split, self.interrupt.poll, part
            )
        return self._loaders[split.name]

    def _kept_weights(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights that are evaluated and kept."""
        average = self.state.average
        return average.applied(self.state.model) if average else nullcontext()
