"""The training loop, told from top to bottom: open, prepare, train, measure, keep."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch, EvaluationLoader, TrainLoader
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.errors import RunFailed, UserError
from mixerkit.evaluation.accuracy import Accuracy, measure, probabilities
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.compilation import choose_compile
from mixerkit.training.interrupt import Interrupt, interrupts
from mixerkit.training.keep import describe_evaluation, figures, keep_model
from mixerkit.training.loss import TargetLoss
from mixerkit.training.progress import Clock, Progress, Silent, Watcher
from mixerkit.training.setup import (
    Steps,
    class_counts,
    count_steps,
    evaluation_loader,
    images_of,
    open_data,
    preprocess_of,
    training_loader,
)
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update

SECONDS_BETWEEN_SIGNS = 0.5
NAMES_SHOWN = 10


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. `seconds` is training time without evaluation; `interrupted` is the
    signal that stopped it early, or 0."""

    run: Path
    steps: int
    seconds: float
    images_per_second: float
    validation: Accuracy | None
    test: Accuracy | None
    interrupted: int = 0


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    model: nn.Module | None = None,
    watch: Watcher | None = None,
) -> TrainingResult:
    """Train by `recipe` into the run folder `out`; with `resume`, go on where it stopped.

    `model` replaces the recipe's model by a peer to compare with: any module that maps
    [B, I, H, W] to logits. It is trained in place, and its weights are kept in the checkpoints
    only. Sets torch's seed and, by the recipe, its number of threads.

    Raises `UserError` when recipe, data or folder do not fit, before anything is written, and
    `RunFailed` when loss or weights become NaN or infinite, or the disk is full.
    """
    watch = watch or Silent()
    asked = recipe.model.num_classes
    recipe, splits = open_data(recipe)
    watch.say(f"data: {splits.origin}")
    watch.say(_classes(splits.train.class_names, asked))
    loader = training_loader(recipe, splits)
    next(iter(loader.epoch(0)))  # this and the next refuse what cannot run, before a folder is made
    steps = count_steps(recipe, len(splits.train))
    with RunFolder.open(out, writing=True) if resume else RunFolder.create(out, recipe) as run:
        _check_same(run, recipe, splits)
        return _Training(recipe, splits, loader, steps, run, model, watch).run_all()


def _classes(names: tuple[str, ...], asked: int) -> str:
    """How many classes there are, the first few by name."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    differs = "" if len(names) == asked else f"; the recipe has {asked}, the data decide"
    return f"classes: {len(names)} ({shown}){differs}"


def _check_same(run: RunFolder, recipe: Recipe, splits: Splits) -> None:
    """A run goes on with the recipe and the images that it was started with."""
    stored = run.recipe()
    changed = [f.name for f in fields(Recipe) if getattr(stored, f.name) != getattr(recipe, f.name)]
    if changed:
        raise UserError(
            f"{run.path} was started with other settings of {', '.join(changed)}: resume it with "
            f"its own recipe, or start a new run in another folder."
        )
    choices, found = run.choices(), images_of(splits)
    if choices.setdefault("images", found) != found:
        raise UserError(
            f"{run.path} was started on other images ({choices['images']}) than are here now "
            f"({found}): put the data back as it was, or start a new run in another folder."
        )
    run.save_choices(choices)


class _Training:
    """The parts of one run; each method is one stage of it."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        loader: TrainLoader,
        steps: Steps,
        run: RunFolder,
        model: nn.Module | None,
        watch: Watcher,
    ) -> None:
        self.recipe, self.splits, self.loader = recipe, splits, loader
        self.steps, self.run, self.watch = steps, run, watch
        self.choices = run.choices()
        threads = int(self.choices.get("threads", recipe.threads))
        if threads:
            torch.set_num_threads(threads)
        held_out = splits.validation
        self.held_out = None if held_out is None else evaluation_loader(recipe, splits, held_out)
        self.state = fresh_state(recipe, model)
        self.loss = math.nan  # of the newest step
        loss = TargetLoss(recipe.loss, class_counts(splits.train))
        self.update = Update(recipe, self.steps, loss, self.state)
        self.validation: Accuracy | None = None

    def run_all(self) -> TrainingResult:
        """Restore or start, train to the end or a signal, then measure and keep."""
        if self.state.restore(self.run):
            self.watch.say(f"resumed at step {self.state.step} of {self.steps.total}")
        self._choose()
        first, before = self.state.step, self.state.seconds
        with interrupts() as interrupt:
            self._train(interrupt)
        test = None if interrupt.received else self._finish()
        spent = self.state.seconds - before
        images = (self.state.step - first) * self.recipe.batch_size
        return TrainingResult(
            run=self.run.path,
            steps=self.state.step,
            seconds=self.state.seconds,
            images_per_second=images / spent if spent else 0.0,
            validation=self.validation,
            test=test,
            interrupted=interrupt.received,
        )

    def _choose(self) -> None:
        """Measure once what a resumed run must do in the same way, and store it."""
        if "compile" not in self.choices:
            part = self.update.micro_batches(next(iter(self.loader.epoch(0))))[0]
            compiled, why = choose_compile(
                self.recipe.compile,
                self.state.model,
                lambda model: self.update.loss_of(model, part),
                self.steps.total - self.state.step,
            )
            self.watch.say(why)
            self.choices |= {
                "compile": compiled,
                "threads": torch.get_num_threads(),
                "total_steps": self.steps.total,
            }
            self.run.save_choices(self.choices)
        if self.choices["compile"]:
            self.update.forward = torch.compile(self.state.model)  # type: ignore[assignment]

    def _train(self, interrupt: Interrupt) -> None:
        """Update until the last step or a signal; the state is saved on the way and at the end."""
        state, steps = self.state, self.steps
        clock = Clock(state.seconds, state.step)
        state.model.train()
        for batch in clock.waiting_for(self._batches()):
            state.losses.append(self.update(batch))
            self.loss = state.losses[-1][0]
            state.seconds = clock.seconds()
            with clock.paused():
                if steps.due(state.step, steps.log_every):
                    self._log(clock)
                if self.held_out and steps.due(state.step, steps.evaluate_every):
                    self._validate(self.held_out)
                    self._tell(clock, evaluated=True)
                if clock.due(SECONDS_BETWEEN_SIGNS) or state.step == steps.total:
                    self._tell(clock)
                stopping = bool(interrupt.received)
                if stopping or steps.due(state.step, steps.save_every):
                    state.save(self.run, self.recipe.save.keep)
            if stopping:
                return

    def _batches(self) -> Iterator[Batch]:
        """Batches from the state's step to the last one, over as many epochs as it takes."""
        while self.state.step < self.steps.total:
            epoch, start = divmod(self.state.step, self.steps.per_epoch)
            for batch in self.loader.epoch(epoch, start):
                yield batch
                if self.state.step >= self.steps.total:
                    return

    def _log(self, clock: Clock) -> None:
        """One row with the mean loss since the last one, and one of timings."""
        state = self.state
        rate = state.optimizers[0].param_groups[0]["lr"]
        loss, norm = state.take_losses()
        self.run.log(
            self._where("train") | {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        )
        self.run.log_timing(
            {
                "step": state.step,
                "seconds": state.seconds,
                "images_per_second": clock.steps_per_second(state.step) * self.recipe.batch_size,
                "waiting": clock.waiting_share(),
            }
        )

    def _validate(self, loader: EvaluationLoader) -> None:
        self.validation, _ = self._measure(loader)
        self.run.log(self._where("validation") | figures(self.validation))
        self.run.log_timing({"step": self.state.step, "seconds": self.state.seconds})

    def _where(self, split: str) -> dict[str, Any]:
        epoch = round(self.state.step / self.steps.per_epoch, 4)
        return {"step": self.state.step, "epoch": epoch, "split": split}

    def _tell(self, clock: Clock, evaluated: bool = False) -> None:
        step, total = self.state.step, self.steps.total
        speed = clock.average_steps_per_second(step)
        self.watch.progress(
            Progress(
                step=step,
                total=total,
                epoch=step / self.steps.per_epoch,
                loss=self.loss,
                validation=self.validation.top1 if self.validation else None,
                images_per_second=speed * self.recipe.batch_size,
                seconds_left=(total - step) / max(speed, 1e-9),
                evaluated=evaluated,
            )
        )

    def _kept_weights(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights that are evaluated and kept."""
        average = self.state.average
        return average.applied(self.state.model) if average else nullcontext()

    def _measure(self, loader: EvaluationLoader) -> tuple[Accuracy, Tensor]:
        """Accuracy and probabilities [N, K] of the weights that would be kept now."""
        with self._kept_weights():
            found, labels = probabilities(self.state.model, loader)
        if not found.isfinite().all():
            raise RunFailed(
                f"After step {self.state.step} the model's outputs are not finite; the last "
                f"checkpoint in {self.run.path} is kept. Try a lower optimizer.lr."
            )
        return measure(found, labels, self.splits.train.class_names), found

    def _finish(self) -> Accuracy | None:
        """Read the test split once, describe it, and keep the final model."""
        measured: dict[str, dict[str, float]] = {}
        if self.held_out and self.validation is None:  # a finished run was resumed
            self.validation, _ = self._measure(self.held_out)
        if self.validation:
            measured["validation"] = figures(self.validation)
        test: Accuracy | None = None
        if self.recipe.evaluate.test and self.splits.test:
            test = self._describe("test", self.splits.test)
            measured["test"] = figures(test)
            self.run.log(self._where("test") | measured["test"])
        elif self.splits.validation:
            self._describe("validation", self.splits.validation)
        if isinstance(self.state.model, MlpMixer):
            preprocess = preprocess_of(self.recipe, self.splits)
            with self._kept_weights():
                keep_model(
                    self.run, self.recipe, self.state.model, preprocess, measured, self.state.step
                )
        return test

    def _describe(self, name: str, split: ImageSplit) -> Accuracy:
        loader = evaluation_loader(self.recipe, self.splits, split)
        accuracy, found = self._measure(loader)
        self.run.save_evaluation(name, describe_evaluation(name, accuracy, found, split, loader))
        return accuracy
