"""What a run does when images or numbers fail: leave them out, go back, or save and stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch, TrainLoader
from mixerkit.data.quarantine import Quarantine, nothing_left
from mixerkit.errors import RunFailed
from mixerkit.spec.recipe import NotFinite
from mixerkit.training.logbook import Logbook
from mixerkit.training.state import TrainingState, what_is_kept
from mixerkit.training.update import FiguresNotFinite


class Failures:
    """`save` puts a checkpoint of `state` into `run`; `quarantine` counts the broken images."""

    def __init__(
        self,
        policy: NotFinite,
        run: RunFolder,
        state: TrainingState,
        log: Logbook,
        quarantine: Quarantine,
        save: Callable[[], None],
    ) -> None:
        self.policy, self.run, self.state, self.log = policy, run, state, log
        self.quarantine, self.save = quarantine, save

    # -- images ----------------------------------------------------------------------------

    @contextmanager
    def saved_first(self) -> Iterator[None]:
        """Around what may fail between two steps, such as reading images or measuring: the state
        is saved, so that nothing is lost."""
        try:
            yield
        except FiguresNotFinite:  # what led there is no state to go on from
            raise
        except Exception:
            self.save()
            raise

    def batches(self, loader: TrainLoader, epoch: int, start: int) -> Iterator[Batch]:
        """The loader's batches of an epoch from `start` on; what they lack is counted."""
        with self.saved_first():
            for batch in loader.epoch(epoch, start):
                self.quarantine.add(loader.split, batch.unreadable)
                if not len(batch.images):
                    raise RunFailed(nothing_left(loader.split, batch.unreadable))
                yield batch

    # -- numbers ---------------------------------------------------------------------------

    def passes_over(self) -> bool:
        """Count the next step without its batch if it is one of those that are left out."""
        if self.state.step + 1 not in self.state.left_out:
            return False
        self._pass_over()
        return True

    def _pass_over(self) -> None:
        self.state.step += 1
        self.log.left_out()

    def leave_out(self, error: FiguresNotFinite) -> bool:
        """By the policy: stop, or go on without the batch of the next step, from here or from the
        newest checkpoint. Whether the step was counted."""
        state, policy = self.state, self.policy
        left_out = sorted({*state.left_out, state.step + 1})
        if policy.policy == "stop" or len(left_out) > policy.limit:
            raise FiguresNotFinite(f"{error} {what_is_kept(self.run)}") from error
        if policy.policy == "roll back":
            self._go_back()
        state.left_out = left_out
        self.log.watch.say(
            f"{error} The batch is left out ({len(left_out)} of at most {policy.limit}), going on "
            f"from step {state.step}."
        )
        if policy.policy == "skip":
            self._pass_over()
        return policy.policy == "skip"

    def _go_back(self) -> None:
        step = self.state.step
        if not self.state.restore(self.run):
            raise RunFailed(f"{self.run.checkpoints.folder} is empty: no step to roll back to.")
        self.log.clock.went_back(step - self.state.step)
