"""The training loop, told from top to bottom: open, prepare, train, measure, keep."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch, TrainLoader
from mixerkit.data.sources import Splits
from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import Accuracy
from mixerkit.spec.recipe import Recipe
from mixerkit.training import advice
from mixerkit.training.compilation import choose_compile
from mixerkit.training.interrupt import Interrupt, Interrupted, interrupts
from mixerkit.training.keep import figures
from mixerkit.training.loss import TargetLoss
from mixerkit.training.measuring import Measuring
from mixerkit.training.progress import Clock, Progress, Silent, Watcher
from mixerkit.training.setup import (
    Steps,
    class_counts,
    count_steps,
    images_of,
    open_data,
    training_loader,
)
from mixerkit.training.state import fresh_state
from mixerkit.training.update import FiguresNotFinite, Update

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
        with interrupts() as interrupt:
            training = _Training(recipe, splits, loader, steps, run, model, watch, interrupt)
            return training.run_all()


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
        interrupt: Interrupt,
    ) -> None:
        self.recipe, self.loader, self.steps, self.run = recipe, loader, steps, run
        self.watch, self.interrupt = watch, interrupt
        self.choices = run.choices()
        threads = int(self.choices.get("threads", recipe.threads))
        if threads:
            torch.set_num_threads(threads)
        self.state = fresh_state(recipe, model)
        self.loss = math.nan  # of the newest step
        loss = TargetLoss(recipe.loss, class_counts(splits.train))
        self.update = Update(recipe, steps, loss, self.state, interrupt.poll)
        self.measuring = Measuring(recipe, splits, run, self.state, interrupt)
        self.clock = Clock(0.0, 0)
        self.noted: set[str] = set()

    def run_all(self) -> TrainingResult:
        """Restore or start, train to the end or a signal, then measure and keep."""
        test: Accuracy | None = None
        self._restore()
        first, before = self.state.step, self.clock.seconds()
        try:
            self._choose()
            self._train()
            test = self._finish()
        except Interrupted:
            self._save()
        seconds = self.clock.seconds()
        images = (self.state.step - first) * self.recipe.batch_size
        return TrainingResult(
            run=self.run.path,
            steps=self.state.step,
            seconds=seconds,
            images_per_second=images / (seconds - before) if images else 0.0,
            validation=self.measuring.validation,
            test=test,
            interrupted=self.interrupt.received,
        )

    def _restore(self) -> None:
        """Take the newest checkpoint, if there is one, and the time spent until then."""
        if self.state.restore(self.run):
            self.watch.say(f"resumed at step {self.state.step} of {self.steps.total}")
        elif self.recipe.not_finite.policy == "roll back":
            self._save()
        times = [row["seconds"] for row in self.run.timings() if row["step"] <= self.state.step]
        self.clock = Clock(max(times, default=0.0), self.state.step)

    def _choose(self) -> None:
        """Measure once what a resumed run must do in the same way, and store it."""
        if "compile" not in self.choices:
            part = self.update.micro_batches(next(iter(self.loader.epoch(0))))[0]

            def step(model: nn.Module) -> Tensor:
                self.interrupt.poll()
                return self.update.loss_of(model, part)

            compiled, why = choose_compile(
                self.recipe.compile, self.state.model, step, self.steps.total - self.state.step
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

    def _train(self) -> None:
        """Update until the last step; what is due after each is done while the clock stands."""
        state, steps, clock = self.state, self.steps, self.clock
        self._note(advice.on_schedule(steps))
        clock.start()
        if state.step and not self._was_evaluated():
            with clock.paused():
                self._after_step()
        state.model.train()
        while state.step < steps.total:
            for batch in clock.waiting_for(self._batches()):
                if not self._advance(batch):
                    break
                with clock.paused():
                    self._after_step()

    def _was_evaluated(self) -> bool:
        """Unless a signal came between a step and its evaluation."""
        step = self.state.step
        evaluated = {row["step"] for row in self.run.metrics() if row["split"] == "validation"}
        return step in evaluated or not self.steps.due(step, self.steps.evaluate_every)

    def _batches(self) -> Iterator[Batch]:
        """Batches from the state's step to the last one, over as many epochs as it takes."""
        while self.state.step < self.steps.total:
            epoch, start = divmod(self.state.step, self.steps.per_epoch)
            for batch in self.loader.epoch(epoch, start):
                yield batch
                if self.state.step >= self.steps.total:
                    return

    def _advance(self, batch: Batch) -> bool:
        """One step with `batch`; False when the run went back and other batches are due."""
        if self.state.step + 1 in self.state.left_out:
            return self._pass_over()
        try:
            self.state.losses.append(self.update(batch))
        except FiguresNotFinite as error:
            return self._leave_out(error)
        self.loss = self.state.losses[-1][0]
        return True

    def _pass_over(self) -> bool:
        """Count a step without its batch."""
        self.state.step += 1
        self.run.log(self._where("left out"))
        return True

    def _leave_out(self, error: FiguresNotFinite) -> bool:
        """By the recipe's policy: stop, or go on without the batch, from here or from the newest
        checkpoint. Whether the step was counted."""
        state, wanted = self.state, self.recipe.not_finite
        left_out = sorted({*state.left_out, state.step + 1})
        if wanted.policy == "stop" or len(left_out) > wanted.limit:
            raise error
        if wanted.policy == "roll back":
            state.restore(self.run)
        state.left_out = left_out
        self.watch.say(
            f"{error} The batch is left out ({len(left_out)} of at most {wanted.limit}), going on "
            f"from step {state.step}."
        )
        return wanted.policy == "skip" and self._pass_over()

    def _after_step(self) -> None:
        """What is due now: figures, evaluation, a sign of life, a checkpoint, a signal."""
        state, steps = self.state, self.steps
        if steps.due(state.step, steps.log_every) and state.losses:
            self._log()
        if steps.due(state.step, steps.evaluate_every):
            self._validate()
        if self.clock.due(SECONDS_BETWEEN_SIGNS) or state.step == steps.total:
            self._tell()
        if steps.due(state.step, steps.save_every):
            self._save()
        self.interrupt.poll()

    def _save(self) -> None:
        self.state.save(self.run, self.recipe.save.keep)
        self.run.log_timing({"step": self.state.step, "seconds": self.clock.seconds()})

    def _log(self) -> None:
        """One row with the mean loss since the last one, and one of timings."""
        state, clock = self.state, self.clock
        rate = state.optimizers[0].param_groups[0]["lr"]
        loss, norm = state.take_losses()
        self.run.log(
            self._where("train") | {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        )
        self.run.log_timing(
            {
                "step": state.step,
                "seconds": clock.seconds(),
                "images_per_second": clock.steps_per_second(state.step) * self.recipe.batch_size,
                "waiting": clock.waiting_share(),
            }
        )

    def _validate(self) -> None:
        validation = self.measuring.validate()
        if validation:
            self.run.log(self._where("validation") | figures(validation))
            self._tell(evaluated=True)
        self._note(advice.on_progress(self.run.metrics(), self.run.timings(), self.steps))

    def _note(self, notes: advice.Notes) -> None:
        """Say what was not said before."""
        for key, text in notes.items():
            if key not in self.noted:
                self.watch.say(f"note: {text}")
        self.noted |= notes.keys()

    def _where(self, split: str) -> dict[str, Any]:
        epoch = round(self.state.step / self.steps.per_epoch, 4)
        return {"step": self.state.step, "epoch": epoch, "split": split}

    def _tell(self, evaluated: bool = False) -> None:
        step, total = self.state.step, self.steps.total
        speed = self.clock.average_steps_per_second(step)
        validation = self.measuring.validation
        self.watch.progress(
            Progress(
                step=step,
                total=total,
                epoch=step / self.steps.per_epoch,
                loss=self.loss,
                validation=validation.top1 if validation else None,
                images_per_second=speed * self.recipe.batch_size,
                seconds_left=(total - step) / max(speed, 1e-9),
                evaluated=evaluated,
            )
        )

    def _finish(self) -> Accuracy | None:
        """Measure and keep; the test's figures, which are logged once."""
        test = self.measuring.finish()
        if test:
            self.run.log(self._where("test") | figures(test))
        return test
