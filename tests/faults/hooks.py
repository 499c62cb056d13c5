"""What is done to a process from inside, before it starts: each function is a hook of `child.py`.

`target` names a function as "module:name" or "module:Class.name", where it is looked up.
"""

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta, tzinfo
from functools import reduce
from importlib import import_module
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from mixerkit.checkpoint.rows import append_row
from mixerkit.checkpoint.run import RunFolder
from mixerkit.training.update import Update

SAVE = "mixerkit.checkpoint.run:RunFolder.save_checkpoint"


def draw_nothing() -> None:
    """Reports have empty pictures, and there are no files of them."""
    _replace("mixerkit.insight.report:draw", lambda _: lambda facts: defaultdict(bytes))


def limit_memory(more: int) -> None:
    """This process may take so many bytes on top of what it has, where the system can tell."""
    taken = Path("/proc/self/statm")
    if taken.exists():
        limit = int(taken.read_text().split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def set_value(target: str, value: Any) -> None:
    """A module's constant has another value."""
    _replace(target, lambda _: value)


def signal_in(target: str, call: int, number: int, sent: str = "", hang: float = 0.0) -> None:
    """This process gets a signal as it enters the function for the `call`-th time. When it was sent
    is written into the file `sent`. With `hang`, the thread that entered hangs for so many seconds,
    and the signal comes after the first of them, when others wait for that thread."""

    def send() -> None:
        time.sleep(min(hang, 1.0))
        if sent:
            Path(sent).write_text(str(time.monotonic()))
        os.kill(os.getpid(), number)
        time.sleep(hang)

    _around(target, call, lambda: nullcontext(send()))


def ignore_signal(number: int) -> None:
    """As a program that is started by `nohup`."""
    signal.signal(number, signal.SIG_IGN)


def poison_loss(step: int) -> None:
    """The loss of a step is NaN."""

    def make(loss_of: Callable[..., Any]) -> Callable[..., Any]:
        def poisoned(update: Update, *args: Any) -> Any:
            loss = loss_of(update, *args)
            return loss * float("nan") if update.state.step + 1 == step else loss

        return poisoned

    _replace("mixerkit.training.update:Update.loss_of", make)


def on_terminal(target: str, call: int, sent: str) -> None:
    """This process is in a terminal of its own, which is closed as it enters a function for the
    `call`-th time: it gets SIGHUP, and can say nothing any more."""
    kept, (master, slave), closing = os.dup(1), os.openpty(), threading.Event()

    def show() -> None:
        while not closing.is_set():
            if select.select([master], [], [], 0.01)[0]:
                os.write(kept, os.read(master, 4096))

    def close() -> None:
        closing.set()
        window.join()
        Path(sent).write_text(str(time.monotonic()))
        os.close(master)

    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(slave)
    window = threading.Thread(target=show, daemon=True)
    window.start()
    _around(target, call, lambda: nullcontext(close()))


def into_head() -> None:
    """Standard output is read by a program that ends after one line, such as `head -1`."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(writing)

    def head() -> None:
        with os.fdopen(reading, "rb") as pipe:
            pipe.readline()

    threading.Thread(target=head, daemon=True).start()


def _around(target: str, call: int, context: Callable[[], AbstractContextManager[Any]]) -> None:
    """The `call`-th call of a function happens inside a context."""
    calls = count(1)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with context() if next(calls) == call else nullcontext():
                return original(*args, **kwargs)

        return wrapped

    _replace(target, make)


def _replace(target: str, make: Callable[[Any], Any]) -> None:
    """Put `make(what is there)` in the place of `target`."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, import_module(module))
    setattr(owner, name, make(getattr(owner, name)))


def set_clock_back(target: str, call: int, seconds: float) -> None:
    """The clock on the wall goes back as this process enters a function for the `call`-th time;
    clocks that only count do not, as when somebody sets the time."""

    def set_back() -> None:
        now = time.time
        time.time = lambda: now() - seconds
        for module in [m for name, m in sys.modules.items() if name.startswith("mixerkit.")]:
            if hasattr(module, "datetime"):
                module.datetime = _Earlier  # type: ignore[attr-defined]

    class _Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(seconds=seconds)

    _around(target, call, lambda: nullcontext(set_back()))


def record_saves(path: str) -> None:
    """After every save, a row of which checkpoints there are and what the process holds."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(run: RunFolder, *args: Any, **kwargs: Any) -> Any:
            saved = original(run, *args, **kwargs)
            row = {
                "steps": run.checkpoints.steps(),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
                "open_files": len(list(Path("/dev/fd").iterdir())),
            }
            append_row(Path(path), row)
            return saved

        return wrapped

    _replace(SAVE, make)


# -- inside one save or function -------------------------------------------------------------

FILE_CALLS = {
    *("open", "write", "serialize_file", "flush", "close", "fsync", "chmod", "utime", "truncate"),
    *("mkdir", "rename", "replace", "unlink", "rmdir", "scandir"),
}
"""Names of functions written in C that touch the disk."""
ON_OPEN_FILES = {"write", "flush", "close", "fsync"}
"""Those of them that are told no path."""


Place = int | list[Any]
"""The first save of a step; or [target, call]: the function, and which call of it."""


def _inside(place: Place, context: Callable[[], AbstractContextManager[Any]]) -> None:
    """What happens at `place` happens inside a context."""
    if isinstance(place, int):
        _around_save(place, context)
    else:
        _around(*place, context)


def _around_save(step: int, context: Callable[[], AbstractContextManager[Any]]) -> None:
    done = False

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(run: RunFolder, now: int, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            first, done = now == step and not done, done or now == step
            with context() if first else nullcontext():
                return original(run, now, *args, **kwargs)

        return wrapped

    _replace(SAVE, make)


def list_file_calls(place: Place, path: str) -> None:
    """Write the names of the file calls at `place` into a file, one a line."""
    names: list[str] = []

    @contextmanager
    def listing() -> Iterator[None]:
        with _at_file_calls(names.append):
            yield
        Path(path).write_text("\n".join(names))

    _inside(place, listing)


def kill_at_file_call(place: Place, number: int) -> None:
    """kill -9 of this process just before file call `number` (from 0) at `place`, or right after
    it when there are no more than `number`."""
    numbers = count()

    def at(_: str) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def killing() -> Iterator[None]:
        with _at_file_calls(at):
            yield
        os.kill(os.getpid(), signal.SIGKILL)

    _inside(place, killing)


def fail_at_file_call(place: Place, number: int, error: int) -> None:
    """File call `number` (from 0) at `place` fails with that error of the system, which names a
    path where the call takes one."""
    numbers = count()

    def at(name: str) -> None:
        if next(numbers) == number:
            path = () if name in ON_OPEN_FILES else ("somewhere",)
            raise OSError(error, os.strerror(error), *path)

    _inside(place, lambda: _at_file_calls(at))


def limit_file_size(step: int, size: int) -> None:
    """From the save of `step` on, no file may grow beyond `size` bytes, as `ulimit -f` has it."""
    limit = resource.RLIMIT_FSIZE
    _around_save(step, lambda: nullcontext(resource.setrlimit(limit, (size, size))))


def run_in(target: str, call: int, command: list[str]) -> None:
    """A command is run as this process enters the function for the `call`-th time."""
    _around(target, call, lambda: nullcontext(subprocess.run(command, check=True)))


def wait_for_tracer(step: int, gate: str) -> None:
    """The save of `step` begins when somebody has opened and closed the named pipe `gate`. Looking
    for that once more right before and right after it shows a tracer where it begins and ends."""

    @contextmanager
    def waiting() -> Iterator[None]:
        Path(gate).read_bytes()
        Path(gate).exists()
        yield
        Path(gate).exists()

    _around_save(step, waiting)


@contextmanager
def _at_file_calls(at: Callable[[str], None]) -> Iterator[None]:
    """Inside, `at(name)` is called before every function of `FILE_CALLS`; what it raises takes the
    place of that call, and of no later one."""

    def look(_: FrameType, event: str, called: Any) -> None:
        of_text = isinstance(getattr(called, "__self__", None), str)  # "a".replace("b", "c")
        if event == "c_call" and called.__name__ in FILE_CALLS and not of_text:
            at(called.__name__)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
