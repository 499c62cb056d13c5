"""Ctrl-C, SIGTERM and a closed terminal, taken between two steps instead of in one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Interrupt:
    """`received` is the signal's number once one came, else 0."""

    received: int = 0


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Inside, the first signal is noted for the loop to poll; a second one ends the process
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
