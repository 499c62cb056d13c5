"""The training loop, told from top to bottom: open, prepare, train, measure, keep."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.environment import differences, environment
from mixerkit.checkpoint.followed import FollowedRun
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.records import START
from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch, TrainLoader
from mixerkit.data.quarantine import Quarantine
from mixerkit.data.sources import Splits
from mixerkit.device import memory_here, memory_told
from mixerkit.errors import UserError, warn
from mixerkit.evaluation.accuracy import Accuracy
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe
from mixerkit.training.advice import on_schedule
from mixerkit.training.compilation import choose_compile
from mixerkit.training.distributed import replicated
from mixerkit.training.division import to_fit
from mixerkit.training.failures import Failures, WentBack
from mixerkit.training.images import contents_of
from mixerkit.training.initial import first_stage, initial_weights
from mixerkit.training.interrupt import Interrupt, Interrupted
from mixerkit.training.logbook import Logbook
from mixerkit.training.loss import TargetLoss
from mixerkit.training.measuring import Measuring
from mixerkit.training.progress import Silent, Watcher
from mixerkit.training.result import TrainingResult, result_of
from mixerkit.training.same import check_same
from mixerkit.training.setup import (
    Steps,
    check_classes,
    check_division,
    class_counts,
    classes_text,
    count_steps,
    images_text,
    open_data,
    training_loader,
)
from mixerkit.training.sharding import is_sharded
from mixerkit.training.state import fresh_state
from mixerkit.training.update import Update
from mixerkit.training.world import World


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

    Where this process has joined others (`distributed.joined`), they train one model together: each
    calls this with the same arguments, and the first writes. Data parallel.

    Raises `UserError` when recipe, data or folder do not fit, before anything is written, and
    `RunFailed` when loss or weights become NaN or infinite, the disk is full, or another process
    is lost.
    """
    world = World.here()
    with world.speaking_once():
        return _train(recipe, out, resume, model, watch or Silent(), world)


def _train(
    recipe: Recipe, out: Path, resume: bool, model: nn.Module | None, watch: Watcher, world: World
) -> TrainingResult:
    if model is not None and (recipe.init.source or recipe.init.recipe):
        raise UserError("init is for the recipe's own model: load weights into yours first.")
    fresh_head = recipe.init.source and recipe.init.head == "fresh"
    asked = None if fresh_head else recipe.model.num_classes
    recipe, splits = world.after_first(lambda: open_data(recipe))  # the first one may fetch it
    watch.say(f"data: {splits.origin}")
    watch.say(classes_text(splits.train.class_names, asked))
    watch.say(images_text(splits))
    interrupt = Interrupt(alone=world.size == 1)
    initial: dict[str, Tensor] | None = None
    with world.agreed():
        part = (world.rank, world.size)
        check_division(recipe, world.size)
        loader = training_loader(recipe, splits, interrupt.poll, part)
        # What cannot run is refused before a folder is made.
        next(iter(loader.epoch(0)))
        if not resume:
            _check_stage(first_stage(recipe), splits, world)
        steps = count_steps(recipe, len(splits.train))
    if not resume:
        world.first_says(lambda: check_classes(loader))
        initial = _initial(recipe, splits.train.class_names, world)
    contents = world.first_says(lambda: contents_of(splits, recipe.data, interrupt.poll))
    with world.after_first(lambda: _opened(out, recipe, resume, world)) as run:
        world.first_says(lambda: check_same(run, recipe, splits, contents, watch))
        run.forget_stop()
        damaged = world.first_says(run.damaged_results)
        if world.first_says(run.is_finished) and not damaged:
            watch.say("the run is finished: nothing is left to do")
            return result_of(run)
        for problem in damaged if world.is_first else []:
            warn(problem)
        if damaged:
            watch.say("the run was finished; what it left is made again from its newest checkpoint")
        if recipe.init.recipe and not world.first_says(run.checkpoints.steps):
            first = _train_first(recipe, run, watch)
            if first.interrupted:
                return replace(first, run=run.path)
            grown = replace(recipe.init, source=str(first.run), recipe="")
            initial = _initial(replace(recipe, init=grown), splits.train.class_names, world)
        training = _Training(recipe, splits, loader, steps, run, model, watch, interrupt)
        with interrupt.listening(training.answer_signal):
            return training.run_all(initial)


def _initial(recipe: Recipe, class_names: tuple[str, ...], world: World) -> dict[str, Tensor]:
    """`initial_weights` in every process; the first one may have to fetch them."""
    return world.after_first(lambda: initial_weights(recipe, class_names))


def _opened(out: Path, recipe: Recipe, resume: bool, world: World) -> RunFolder:
    """The run's folder for this process."""
    if not world.is_first:
        return FollowedRun.open(out)
    return RunFolder.open(out, writing=True) if resume else RunFolder.create(out, recipe)


def _check_stage(stage: Recipe | None, splits: Splits, world: World) -> None:
    """`UserError` where what is trained first could not begin."""
    if stage:
        check_division(stage, world.size)
        training_loader(stage, splits)
        count_steps(stage, len(splits.train))


def _train_first(recipe: Recipe, run: RunFolder, watch: Watcher) -> TrainingResult:
    """Train what the run grows from, in its folder start/, or go on with it, as it was begun."""
    folder = run.path / START
    begun = World.here().first_says(lambda: is_run(folder))
    if begun:
        with RunFolder.open(folder) as opened:
            stage: Recipe | None = opened.recipe()
    else:
        stage = first_stage(recipe)
    assert stage is not None
    watch.say(f"first:  {stage.name}, in {folder}")
    first = train(stage, folder, resume=begun, watch=watch)
    if first.interrupted:
        run.note_stop(signal.Signals(first.interrupted).name)
    else:
        watch.say(f"first:  {stage.name} is trained; the run itself begins")
    return first


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
        self.watch, self.interrupt, self.world = watch, interrupt, World.here()
        self.class_names = splits.train.class_names
        self.choices = run.choices()
        alike = self.choices.get("processes", 1) == self.world.size
        if threads := (self.choices.get("threads") if alike else None) or recipe.threads:
            torch.set_num_threads(threads)
        self.state = fresh_state(recipe, model)
        loss = TargetLoss(recipe.loss, class_counts(splits.train))
        self.update = Update(recipe, steps, loss, self.state, interrupt.poll)
        self.log = Logbook(recipe, steps, run, self.state, watch)
        quarantine = Quarantine(recipe.data.max_unreadable, self.log.unreadable, watch.say)
        self.measuring = Measuring(recipe, splits, run, self.state, quarantine, interrupt)
        quarantine.recall(
            self.world.first_says(run.quarantine),
            lambda name, index: self.world.first_says(
                lambda: self.measuring.is_broken(name, index)
            ),
        )
        policy = recipe.not_finite
        self.failures = Failures(
            policy, run, self.state, self.log, quarantine, self._save, interrupt
        )

    def answer_signal(self) -> None:
        """What a person who has pressed Ctrl-C reads at once."""
        saved = self.run.checkpoints.steps()
        loses = f"what came after step {saved[-1]:,}" if saved else "all that was done"
        self.watch.say(f"Stopping and saving; a second signal stops at once and loses {loses}.")

    def run_all(self, initial: dict[str, Tensor] | None) -> TrainingResult:
        """Restore or start, train to the end or a signal. `initial`: the weights to start from, if
        they were read already."""
        test: Accuracy | None = None
        stopped = False
        self._restore(initial)
        first, before = self.state.step, self.log.clock.seconds()
        with self.failures.told(), memory_told(self._how_to_fit):
            try:
                self._choose()
                test = self._train()
            except Interrupted:
                stopped = True
                self._save()
                self.run.note_stop(signal.Signals(self.interrupt.received).name)
        seconds = self.log.clock.seconds()
        images = (self.state.step - first) * self.recipe.batch_size
        return TrainingResult(
            run=self.run.path,
            steps=self.state.step,
            seconds=seconds,
            images_per_second=images / (seconds - before) if images else 0.0,
            validation=self.measuring.validation,
            test=test,
            # of several processes, some may have received what came too late to stop any
            interrupted=self.interrupt.received if stopped or self.world.size == 1 else 0,
            left_out=tuple(self.measuring.quarantine.rows()),
        )

    def _how_to_fit(self) -> str:
        """What may help where memory is too small."""
        if isinstance(self.state.model, MlpMixer):
            return to_fit(self.recipe, self.world.size, memory_here())
        return "Start again with a larger --accumulation: it cuts the batch into smaller parts."

    def _restore(self, initial: dict[str, Tensor] | None) -> None:
        """Take the newest checkpoint, if there is one, and the time spent until then."""
        if self.state.restore(self.run):
            self.watch.say(f"resumed at step {self.state.step} of {self.steps.total}")
            self._compare_environments()
        else:
            self._begin(initial)
        self.log.start_clock()

    def _begin(self, initial: dict[str, Tensor] | None) -> None:
        """Start without a checkpoint; what was logged before the first one is logged again."""
        self.world.first_says(self._check_beginning)
        if initial is None:
            initial = _initial(self.recipe, self.class_names, self.world)
        if initial:
            self.state.start_from(initial)
            init = self.recipe.init
            self.watch.say(f"weights: {init.source or init.recipe}, the head {init.head}")
        if initial or self.recipe.not_finite.policy == "roll back":
            self._save()  # so that the run needs its source no more, or can go back to here

    def _check_beginning(self) -> None:
        """No checkpoint was lost; rows of steps that none was saved of are cut off."""
        reached = max((row["step"] for row in self.run.metrics()), default=0)
        saved = self.run.saved_step()
        if saved is not None or reached > self.steps.save_every:
            raise UserError(
                f"{self.run.checkpoints.folder} holds no checkpoint, but the run has been at step "
                f"{max(reached, saved or 0):,}: put the folder back, or start a new run in another "
                f"one."
            )
        if reached:
            self.watch.say("no checkpoint was saved yet: starting from the beginning")
        self.run.cut_metrics(None)

    def _compare_environments(self) -> None:
        """Say where this process differs from the one that saved, for the last bits then do too."""
        saved = self.run.checkpoints.about(self.state.step)
        different = differences(saved, environment())
        if different:
            self.watch.say(
                f"note: the run goes on in another environment ({'; '.join(different)}): it is as "
                f"good, but its last bits may differ from those of a run that never stopped."
            )

    def _choose(self) -> None:
        """Measure once what a resumed run must do in the same way, and store it."""
        if "compile" not in self.choices:
            compiled, why = self._compile_or_not()
            self.watch.say(why)
            self.choices |= {
                "compile": compiled,
                "threads": torch.get_num_threads(),
                "processes": self.world.size,
                "total_steps": self.steps.total,
            }
            self.world.first_says(lambda: self.run.save_choices(self.choices))
        model = self.state.model
        if self.choices["compile"]:
            model = torch.compile(model)  # type: ignore[assignment]
        self.update.forward = replicated(model, self.world)

    def _compile_or_not(self) -> tuple[bool, str]:
        """Whether to compile, and why; what is measured is measured by the first process alone, and
        not with a divided model, through which all must go together."""
        if self.recipe.compile == "auto" and is_sharded(self.state.model):
            return False, "compile: off (not measured with a model that is divided)"
        part = self.update.micro_batches(next(iter(self.loader.epoch(0))))[0]
        left = self.steps.total - self.state.step

        def step(model: nn.Module) -> Tensor:
            self.interrupt.poll()
            return self.update.loss_of(model, part)

        return self.world.first_says(
            lambda: choose_compile(self.recipe.compile, self.state.model, step, left)
        )

    def _train(self) -> Accuracy | None:
        """Update until the last step, then measure and keep; the test's figures. What is due after
        each step, and at the end, is done while the clock stands."""
        state, steps, clock = self.state, self.steps, self.log.clock
        self.log.note(on_schedule(steps))
        clock.start()
        # a signal came between the two
        due = state.step > 0 and not self.world.first_says(self.log.was_evaluated)
        state.model.train()
        while True:
            try:
                if due:
                    due = False
                    self._after_step()
                for batch in clock.waiting_for(self._batches()):
                    self._advance(batch)
                    self._after_step()
                return self._finish()
            except WentBack:
                self.measuring.forget()
                self.log.forget()

    def _batches(self) -> Iterator[Batch]:
        """Batches from the state's step to the last one, over as many epochs as it takes."""
        while self.state.step < self.steps.total:
            epoch, start = divmod(self.state.step, self.steps.per_epoch)
            for batch in self.failures.batches(self.loader, epoch, start):
                yield batch
                if self.state.step >= self.steps.total:
                    return

    def _advance(self, batch: Batch) -> None:
        """One step with `batch`, or past it."""
        if self.failures.passes_over():
            return
        with self.failures.answered():
            self.state.losses.append(self.update(batch))
            self.log.loss = self.state.losses[-1][0]

    def _after_step(self) -> None:
        """What is due now, while the clock stands: figures, evaluation, a sign of life, a
        checkpoint, a signal."""
        state, steps = self.state, self.steps
        with self.log.clock.paused(), self.failures.answered():
            if steps.due(state.step, steps.log_every) and state.losses:
                self.log.training()
            if steps.due(state.step, steps.evaluate_every):
                with self.failures.saved_first():
                    validation = self.measuring.validate()
                if validation:
                    self.log.accuracy("validation", validation)
            self.log.sign_of_life()
            if self._save_is_due():
                self._save()
            self.interrupt.poll()

    def _save_is_due(self) -> bool:
        """Only steps that were left out since the newest checkpoint are saved at the end alone: the
        weights are saved already."""
        state, steps = self.state, self.steps
        no_news = state.step in state.left_out and state.updates == state.saved
        return steps.due(state.step, steps.save_every) and (
            not no_news or state.step == steps.total
        )

    def _save(self) -> None:
        policy = self.recipe.not_finite
        reach = policy.limit if policy.policy == "roll back" else 0
        self.state.save(self.run, self.recipe.save.keep, reach)
        self.log.saved(self.state.step)

    def _finish(self) -> Accuracy | None:
        """Measure and keep; the test's figures, which are logged once."""
        test: Accuracy | None = None
        with self.log.clock.paused(), self.failures.answered():
            test = self.measuring.test()
        if test:
            self.log.accuracy("test", test)
        if self.world.size > 1:
            self.interrupt.heed(max(self.world.all_say(self.interrupt.received)))
        self.measuring.keep(test)
        return test
