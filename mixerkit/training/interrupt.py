"""Ctrl-C, SIGTERM and a closed terminal, taken where the state can be saved."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Item = TypeVar("Item")


class Interrupted(BaseException):
    """A signal came. Not an `Exception`, so that nothing mends it on the way."""


@dataclass
class Interrupt:
    """`received` is the signal's number once one came, else 0."""

    received: int = 0

    def poll(self) -> None:
        """Raise `Interrupted` once a signal came; called wherever nothing is half done."""
        if self.received:
            raise Interrupted

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; polls before each."""
        for item in items:
            self.poll()
            yield item


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Inside, the first signal is noted for the work to poll; a second one ends the process
    at once. Outside the main thread, where Python takes no signals, nothing is changed."""
    noted = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: object) -> None:
        noted.received = number
        for each in SIGNALS:
            signal.signal(each, before[each])

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
