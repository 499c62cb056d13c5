"""Several processes that train one model together: what they tell each other, and where.

`torchrun` starts them and names each in its environment. All go through the same steps, and talk
only where all of them come by; the first (rank 0) alone writes the run folder and speaks. An error
of one is raised in all, so that none waits for another in vain.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mixerkit.errors import SAID_ELSEWHERE, RunFailed, UserError, is_marked, marked

SIGNS_OF_LOSS = ("connection closed", "connection reset", "by peer", "timed out", "broken pipe")
"""What PyTorch's messages say then, whichever library talks."""

AGREED = "was_agreed"
"""Marks an error that one process raises for all, and says."""

T = TypeVar("T")


class LostProcess(RunFailed):
    """Another process of the run has gone, or does not answer."""


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees them: `rank` of `size`. Alone, every method does
    its work without any talk."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "World":
        """What this process has joined."""
        if not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    # -- numbers ---------------------------------------------------------------------------

    def sum(self, value: float) -> float:
        """The sum over all processes, the same in each."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def sum_of(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def numbers_of_all(self, own: list[int]) -> list[list[int]]:
        """As many whole numbers of each process, by rank."""
        if self.size == 1:
            return [own]
        sent = torch.tensor(own)
        found = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(found, sent)
        return [one.tolist() for one in found]

    # -- anything --------------------------------------------------------------------------

    def all_say(self, own: T) -> list[T]:
        """What each process gives, by rank."""
        if self.size == 1:
            return [own]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own)
        return found

    def first_hears(self, own: T) -> list[T]:
        """What each process gives, by rank, for the first; nothing for the others."""
        if self.size == 1:
            return [own]
        found: list[Any] = [None] * self.size if self.is_first else []
        dist.gather_object(own, found if self.is_first else None)
        return found

    def first_says(self, make: Callable[[], T]) -> T:
        """What `make` gives to the first process, or the error that it raises there, in all."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        failed: Exception | None = None
        if self.is_first:
            try:
                made[0] = make()
            except Exception as error:
                failed = marked(error, AGREED)
                made[1] = _sent(error)
        dist.broadcast_object_list(made)
        if failed:
            raise failed
        if made[1]:
            raise marked(made[1], SAID_ELSEWHERE)
        result: T = made[0]
        return result

    def after_first(self, do: Callable[[], T]) -> T:
        """What `do` gives in each process, where the others begin when the first is done."""
        if self.size == 1:
            return do()
        own: list[T] = []
        with self.agreed():
            if self.is_first:
                own.append(do())
        with self.agreed():
            if not self.is_first:
                own.append(do())
        return own[0]

    # -- errors ----------------------------------------------------------------------------

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Around what every process does for itself: where it fails in some, the error of the first
        of them is raised in all."""
        if self.size == 1:
            yield
            return
        try:
            yield
        except Exception as error:
            self.agree(error)
        else:
            self.agree(None)

    def agree(self, error: Exception | None) -> None:
        """Raise in all processes what any of them gives here."""
        found = self.all_say(_sent(error) if error else None)
        first = next(((rank, one) for rank, one in enumerate(found) if one), None)
        if first is None:
            return
        if error and first[0] == self.rank:
            raise marked(error, AGREED)
        raise marked(first[1], SAID_ELSEWHERE)

    @contextmanager
    def speaking_once(self) -> Iterator[None]:
        """Inside, an error that all processes raise alike, such as of figures that are the same in
        all, is left to the first to say. Not what was agreed on, nor the loss of another one."""
        try:
            yield
        except (UserError, RunFailed) as error:
            own = isinstance(error, LostProcess) or is_marked(error, AGREED)
            if not (self.is_first or own):
                marked(error, SAID_ELSEWHERE)
            raise

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Inside, what PyTorch says of a process that has gone becomes `LostProcess`."""
        try:
            yield
        except RuntimeError as error:
            text = str(error).lower()
            if self.size == 1 or isinstance(error, RunFailed):
                raise
            if not any(sign in text for sign in SIGNS_OF_LOSS):
                raise
            raise LostProcess(
                f"Process {self.rank} of {self.size} can no longer reach the others: one of them "
                f"has ended, or the network has. What it printed says why; the newest checkpoint "
                f"of a run is whole."
            ) from error


def _sent(error: Exception) -> Exception:
    """An error as it can be sent to another process: of a class that both know and that takes what
    is sent; else a `RunFailed`, or `UserError`, of its text."""
    kind, text = type(error), str(error)
    if isinstance(error, OSError):
        return OSError(*((error.errno, error.strerror, error.filename) if error.errno else (text,)))
    if isinstance(error, IndexError):
        return IndexError(text)
    ours = [one for one in kind.__mro__ if one.__module__.startswith("mixerkit.")]
    if any("__reduce__" in one.__dict__ for one in ours):
        return error
    if ours and not any("__init__" in one.__dict__ for one in ours):
        return kind(text)
    if isinstance(error, UserError):
        return UserError(text)
    return RunFailed(text if isinstance(error, RunFailed) else f"{kind.__name__}: {text}")
