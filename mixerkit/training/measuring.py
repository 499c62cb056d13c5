"""How good the weights are that a run would keep now, and what it leaves behind at its end."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.quarantine import Quarantine
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.evaluation.accuracy import Accuracy, measure, probabilities
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.interrupt import Interrupt
from mixerkit.training.keep import describe_evaluation, figures, keep_model
from mixerkit.training.setup import evaluation_loader, preprocess_of
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
        self.validation: Accuracy | None = None
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
        if not isinstance(self.state.model, MlpMixer):
            return
        measured = {"validation": self.validate(), "test": test}
        known = {name: figures(found) for name, found in measured.items() if found}
        preprocess, step = preprocess_of(self.recipe, self.splits), self.state.step
        with self._kept_weights():
            keep_model(self.run, self.recipe, self.state.model, preprocess, known, step)

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
        with self._kept_weights():
            found, labels = probabilities(self.state.model, self.interrupt.between(loader))
        self.quarantine.add(split, loader.unreadable)
        if not found.isfinite().all():
            step = self.state.step
            raise FiguresNotFinite(f"After step {step} the model's outputs are not finite.", step)
        return measure(found, labels, self.splits.train.class_names), found

    def _describe(self, name: str, accuracy: Accuracy, found: Tensor, split: ImageSplit) -> None:
        loader = self._loader(split)
        self.run.save_evaluation(name, describe_evaluation(name, accuracy, found, split, loader))

    def _loader(self, split: ImageSplit) -> EvaluationLoader:
        """One for each split, which keeps its decoded images."""
        if split.name not in self._loaders:
            self._loaders[split.name] = evaluation_loader(
                self.recipe, self.splits, split, self.interrupt.poll
            )
        return self._loaders[split.name]

    def _kept_weights(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights that are evaluated and kept."""
        average = self.state.average
        return average.applied(self.state.model) if average else nullcontext()
