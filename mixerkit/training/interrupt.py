"""Ctrl-C, SIGTERM and a closed terminal, taken where the state can be saved."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mixerkit.errors import exit_code_for_signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_EVENT = 0.5
"""Seconds after the first signal in which others belong to it: systemd sends two kinds at once,
`timeout` the same one to a process and to its group, and a terminal that closes does both."""

Item = TypeVar("Item")


class Interrupted(BaseException):
    """A signal came. Not an `Exception`, so that nothing mends it on the way."""


class Interrupt:
    """`received` is the signal's number once one came, else 0. `alone`: this process may stop where
    it is; of several none may, for the others would wait for it: they agree (`heed`)."""

    def __init__(self, alone: bool = True) -> None:
        self.alone, self.received = alone, 0
        self._when = 0.0

    def poll(self) -> None:
        """Raise `Interrupted` once a signal came; called wherever nothing is half done."""
        if self.received and self.alone:
            raise Interrupted

    def heed(self, received: int) -> None:
        """Raise `Interrupted` where any process has received a signal: `received`, if not 0."""
        if received:
            self.received = received
            raise Interrupted

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; polls before each."""
        for item in items:
            self.poll()
            yield item

    @contextmanager
    def listening(self, answer: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Inside, the first signal is noted for the work to poll, and answered at once; a second
        one, which is none of the same event, does what it did before.

        Signals that are ignored stay ignored (`nohup`). Outside the main thread, where Python
        takes no signals, nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: old for n, old in handlers.items() if old not in (signal.SIG_IGN, None)}

        def put_back() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number: int, _frame: object) -> None:
            if not self.received:
                self.received, self._when = number, time.monotonic()
                answer()
            elif time.monotonic() - self._when > SAME_EVENT:
                put_back()
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            put_back()


@contextmanager
def second_ends_at_once() -> Iterator[None]:
    """Inside, a second signal ends the process at once with 128 + signal, whatever it is doing;
    none that belongs to the first.

    Handlers wait while the main thread computes outside of Python, and what they raise may be
    caught, as by a compiler; so a thread counts the signals. This is for programs: where somebody
    works on in the same process, as in a notebook, a second one should only raise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    threading.Thread(target=_count, args=(heard,), name="mixerkit signals", daemon=True).start()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    _told.append(told)
    try:
        yield
    finally:
        _told.pop()
        signal.set_wakeup_fd(before)
        told.close()  # which ends the thread


_told: list[socket.socket] = []
"""Where signals are counted, of which a forked child inherits the descriptor."""


def _count_none_of_a_child() -> None:
    if _told:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_count_none_of_a_child)


def _count(heard: socket.socket) -> None:
    """Each signal that has a handler is a byte, written by Python as soon as it comes."""
    first: float | None = None
    with heard:
        while number := heard.recv(1):
            if number[0] not in SIGNALS:
                continue
            if first is None:
                first = time.monotonic()
            elif time.monotonic() - first > SAME_EVENT:
                os._exit(exit_code_for_signal(number[0]))
