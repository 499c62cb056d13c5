"""What a run writes down about itself, and says to whoever watches it."""

import math
from typing import Any

from mixerkit.checkpoint.run import RunFolder
from mixerkit.evaluation.accuracy import Accuracy
from mixerkit.spec.recipe import Recipe
from mixerkit.training import advice
from mixerkit.training.keep import figures
from mixerkit.training.progress import Clock, Progress, Watcher
from mixerkit.training.setup import Steps
from mixerkit.training.state import TrainingState

SECONDS_BETWEEN_SIGNS = 0.5


class Logbook:
    """Rows of metrics and timings, progress, and notes, each of which is said once."""

    def __init__(
        self, recipe: Recipe, steps: Steps, run: RunFolder, state: TrainingState, watch: Watcher
    ) -> None:
        self.recipe, self.steps, self.run, self.state = recipe, steps, run, state
        self.watch = watch
        self.clock = Clock(0.0, 0)
        self.loss = math.nan  # of the newest step
        self.validation: Accuracy | None = None
        self._noted: set[str] = set()

    def start_clock(self) -> None:
        """Begin to count, from the time that was spent until the state's step."""
        step = self.state.step
        times = [row["seconds"] for row in self.run.timings() if row["step"] <= step]
        self.clock = Clock(max(times, default=0.0), step)

    def training(self) -> None:
        """One row with the mean loss since the last one, and one of timings."""
        state, clock = self.state, self.clock
        rate = state.optimizers[0].param_groups[0]["lr"]
        loss, norm = state.take_losses()
        self._row("train", {"loss": loss, "learning_rate": rate, "gradient_norm": norm})
        self.run.log_timing(
            {
                "step": state.step,
                "seconds": clock.seconds(),
                "images_per_second": clock.steps_per_second(state.step) * self.recipe.batch_size,
                "waiting": clock.waiting_share(),
            }
        )

    def accuracy(self, split: str, found: Accuracy) -> None:
        """One row of what was measured, and what the rows until now say about the run."""
        self._row(split, figures(found))
        if split == "validation":
            self.validation = found
            self.progress(evaluated=True)
        if self.state.world.is_first:  # who wrote the rows
            self.note(advice.on_progress(self.run.metrics(), self.run.timings(), self.steps))

    def left_out(self) -> None:
        """One row for a step whose batch was not used."""
        self._row("left out", {})

    def was_evaluated(self) -> bool:
        """Whether the state's step has its row of held-out accuracy."""
        rows = self.run.metrics()
        return any(row["split"] == "validation" and row["step"] == self.state.step for row in rows)

    def _row(self, split: str, content: dict[str, Any]) -> None:
        epoch = round(self.state.step / self.steps.per_epoch, 4)
        self.run.log({"step": self.state.step, "epoch": epoch, "split": split} | content)

    def saved(self, step: int) -> None:
        """The time that was spent until the checkpoint of `step` became the newest."""
        self.run.log_timing({"step": step, "seconds": self.clock.seconds()})

    def forget(self) -> None:
        """The run went back: what was last measured is not of these weights."""
        self.loss, self.validation = math.nan, None

    def unreadable(self, row: dict[str, Any]) -> None:
        """An image that is left out."""
        self.run.log_quarantine(row)
        self.watch.say(f"left out: {row['file']} ({row['reason']})")

    def note(self, notes: advice.Notes) -> None:
        """Say what was not said before."""
        for key, text in notes.items():
            if key not in self._noted:
                self.watch.say(f"note: {text}")
        self._noted |= notes.keys()

    def sign_of_life(self) -> None:
        """Draw progress, unless that was just done."""
        if self.clock.due(SECONDS_BETWEEN_SIGNS) or self.state.step == self.steps.total:
            self.progress()

    def progress(self, evaluated: bool = False) -> None:
        """Draw progress."""
        step, total = self.state.step, self.steps.total
        speed = self.clock.average_steps_per_second(step)
        self.watch.progress(
            Progress(
                step=step,
                total=total,
                epoch=step / self.steps.per_epoch,
                loss=self.loss,
                validation=self.validation.top1 if self.validation else None,
                images_per_second=speed * self.recipe.batch_size,
                seconds_left=(total - step) / speed if speed else math.inf,
                evaluated=evaluated,
            )
        )
