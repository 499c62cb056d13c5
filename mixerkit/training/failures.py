"""What a run does when images or numbers fail: leave them out, go back, or save and stop."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch, TrainLoader
from mixerkit.data.quarantine import Quarantine, Unreadable, nothing_left
from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.recipe import NotFinite
from mixerkit.training.interrupt import Interrupt
from mixerkit.training.logbook import Logbook
from mixerkit.training.state import FiguresNotFinite, TrainingState, how_to_resume

OTHER_SETTINGS = (
    "A new run may do better with a lower optimizer.lr, a longer schedule.warmup, optimizer.clip=1 "
    "or another not_finite.policy. If the machine was at fault, this one may go on "
)


class WentBack(Exception):
    """The run stands at an earlier step now: other batches are due."""


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
        interrupt: Interrupt,
    ) -> None:
        self.policy, self.run, self.state, self.log = policy, run, state, log
        self.quarantine, self.save, self.interrupt = quarantine, save, interrupt
        self.world = state.world

    @contextmanager
    def told(self) -> Iterator[None]:
        """Around the whole run: figures that are not finite and end it say what may help."""
        try:
            yield
        except FiguresNotFinite as error:
            message = f"{error} {OTHER_SETTINGS}{how_to_resume(self.run)}"
            raise FiguresNotFinite(message, error.step) from error

    # -- images ----------------------------------------------------------------------------

    @contextmanager
    def saved_first(self) -> Iterator[None]:
        """Around what may fail between two steps, such as reading images or measuring: the state
        is saved, so that nothing is lost, and the error says so."""
        try:
            yield
        except FiguresNotFinite:  # what led there is no state to go on from
            raise
        except (UserError, RunFailed) as error:
            self.save()
            kind = UserError if isinstance(error, UserError) else RunFailed
            raise kind(f"{error} Step {self.state.step:,} is saved.") from error
        except Exception:
            if self.world.size == 1:  # of several, the others may be elsewhere
                self.save()
            raise

    def batches(self, loader: TrainLoader, epoch: int, start: int) -> Iterator[Batch]:
        """The loader's batches of an epoch from `start` on; what they lack is counted."""
        batches = loader.epoch(epoch, start)
        with self.saved_first():
            while found := self._next(batches):
                batch, images, unreadable = found
                if unreadable:
                    with self.world.agreed():  # the first one writes them down
                        self.quarantine.add(loader.split, unreadable)
                if not images:
                    raise RunFailed(nothing_left(loader.split, unreadable))
                yield batch

    def _next(self, batches: Iterator[Batch]) -> tuple[Batch, int, tuple[Unreadable, ...]] | None:
        """This process's next batch once all have theirs, how many images there are in all of them,
        and what these lack; None at the end. An error or a signal of one is one of all."""
        batch: Batch | None = None
        failed: Exception | None = None
        try:
            batch = next(batches, None)
        except Exception as error:
            if self.world.size == 1:
                raise
            failed = error
        images, unreadable = (len(batch.images), batch.unreadable) if batch else (0, ())
        own = [failed is not None, images, len(unreadable), self.interrupt.received]
        of_all = self.world.numbers_of_all(own)
        any_failed, all_images, lacking, _ = (sum(each) for each in zip(*of_all, strict=True))
        if any_failed:
            self.world.agree(failed)
        if self.world.size > 1:
            self.interrupt.heed(max(received for *_, received in of_all))
        if lacking and self.world.size > 1:
            unreadable = tuple(one for each in self.world.all_say(unreadable) for one in each)
        return (batch, all_images, unreadable) if batch else None

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

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Around what may give figures that are not finite, which are answered by the policy: the
        run stops, goes on without the batch, or went back, which raises `WentBack`."""
        try:
            yield
        except FiguresNotFinite as error:
            self._leave_out(error)

    def _leave_out(self, error: FiguresNotFinite) -> None:
        state, policy = self.state, self.policy
        goes_back = policy.policy == "roll back"
        first = self._first_suspect(error.step) if goes_back else error.step
        left_out = sorted({*state.left_out, *range(first, error.step + 1)})
        # an update that was made cannot be skipped, nor one that the only checkpoint has seen
        too_late = first > error.step if goes_back else error.step <= state.step
        if policy.policy == "stop" or too_late:
            raise error
        if len(left_out) > policy.limit:
            what = f"{len(left_out)} batches would be left out, not_finite.limit is {policy.limit}."
            raise FiguresNotFinite(f"{error} {what}", error.step) from error
        if goes_back:
            self._go_back(first)
        state.left_out = left_out
        before = error.step - first
        self.log.watch.say(
            f"{error} The batch is left out{f', and the {before} before it' if before else ''} "
            f"({len(left_out)} of at most {policy.limit}), going on from step {state.step}."
        )
        if goes_back:
            raise WentBack
        self._pass_over()

    def _first_suspect(self, failed: int) -> int:
        """The first step to leave out, which must be after a checkpoint that can be used. (One that
        is `limit` steps old is kept, whatever signals made the run save since.)"""
        oldest = self.world.first_says(self.run.oldest_checkpoint) or 0
        return max(first_suspect(failed, self.state.left_out), oldest + 1)

    def _go_back(self, first: int) -> None:
        """To the newest checkpoint that has not seen the batch of step `first`. Once that is known
        to be whole, those that have are taken away: they led to the damage, and must push out no
        other."""

        def take_away_later(step: int) -> None:
            self.log.saved(step)  # before the others are gone, which would seem to be lost
            self.run.take_away(first)

        step = self.state.step
        try:
            found = self.state.restore(self.run, first, take_away_later)
        except UserError as error:
            raise RunFailed(f"There is no step to roll back to. {error}") from error
        if not found:
            folder = self.run.checkpoints.folder
            raise RunFailed(f"{folder} holds no checkpoint from before step {first:,}.")
        self.log.clock.went_back(step - self.state.step)


def first_suspect(failed: int, left_out: Collection[int]) -> int:
    """The first of the steps to leave out when `failed` gave figures that are not finite.

    That step alone, at first. Where those just before it are left out already, no update was made
    since they failed: the same weights fail with every batch, so that the batches are to blame
    which led to these weights. Of them, as many as were left out so far: 1, 3, 7, 15 … in all.
    """
    first = failed + 1 if failed in left_out else failed
    end = first
    while first - 1 in left_out:
        first -= 1
    return max(1, first - (end - first))
