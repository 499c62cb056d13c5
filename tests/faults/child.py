"""Command lines in processes of their own, to be killed, stopped and starved.

`start_fork` forks from a process that has imported everything (`forks.py`), which takes
milliseconds and lets `hooks.py` reach into the child; `start_command` is the command line as people
type it.
"""

import atexit
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds after which a process that should have ended counts as hung."""

Hook = tuple[str, tuple[Any, ...]]
"""The name of a function in `hooks.py` and its arguments, called in the child before it starts."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that killed it), and what it said."""

    code: int
    out: str
    err: str


class Child:
    """A `mixer` command line at work; `pid` is its process. `ended(seconds)` waits that long and
    gives the exit code, or None while it is running. `said` is where its output goes."""

    def __init__(self, pid: int, ended: Callable[[float], int | None], said: Path) -> None:
        self.pid, self._ended, self.said = pid, ended, said
        self.code: int | None = None

    def ended_within(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        if self.code is None:
            self.code = self._ended(seconds)
        return self.code is not None

    def send(self, number: int) -> None:
        """Send a signal; too late is harmless."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Wait for its end; one that hangs is killed and fails the trial."""
        if not self.ended_within(seconds):
            self.send(signal.SIGKILL)
            self.ended_within(PATIENCE)
            raise AssertionError(f"still running after {seconds} s: {self._heard()}")
        assert self.code is not None
        return Ended(self.code, *self._heard())

    def _heard(self) -> tuple[str, str]:
        out, err = (self.said.with_suffix(suffix) for suffix in (".out", ".err"))
        return out.read_text(errors="replace"), err.read_text(errors="replace")


def start_fork(
    words: list[str],
    folder: Path,
    hooks: tuple[Hook, ...] = (),
    environment: dict[str, str] | None = None,
) -> Child:
    """Run `mixer words` in `folder`, in a fork; `hooks` are called in it first.

    One at a time: what a broken trial left running is killed.
    """
    said = _output()
    request = {
        "words": words,
        "folder": str(folder),
        "hooks": hooks,
        "environment": environment or {},
        "said": str(said),
    }
    server = _server()
    if server.child and not server.child.ended_within(0):
        server.child.send(signal.SIGKILL)
        server.child.ended_within(PATIENCE)
    server.say(request)
    answer = server.hear(PATIENCE)
    assert answer, "the process that forks gave no answer"

    def ended(seconds: float) -> int | None:
        answer = server.hear(seconds)
        return answer["code"] if answer else None

    server.child = Child(answer["pid"], ended, said)
    return server.child


def start_command(
    words: list[str], folder: Path, environment: dict[str, str] | None = None
) -> Child:
    """Run `python -m mixerkit words` in `folder`."""
    said = _output()
    outputs = [said.with_suffix(suffix).open("wb") for suffix in (".out", ".err")]
    with outputs[0] as out, outputs[1] as err, _heeding_signals():
        process = subprocess.Popen(
            [sys.executable, "-m", "mixerkit", *words],
            cwd=folder,
            env=environment() | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )

    def ended(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    return Child(process.pid, ended, said)


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """A process that is started inside heeds the signals that we ignore, as under nohup: it would
    inherit that they are ignored, but not what else is done with them."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def environment() -> dict[str, str]:
    """Ours, offline, with one thread; `mixerkit` is the one beside these tests."""
    inherited = {name: text for name, text in os.environ.items() if name != "MIXERKIT_DEBUG"}
    settings = {"MIXERKIT_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return inherited | settings


class _Server:
    """The process of `forks.py`; `child` is the last one that it forked."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; it ends when its input does
        )

    def say(self, request: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, if it comes within so many seconds."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        line = self.process.stdout.readline()
        assert line, "the process that forks has died"
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@cache
def _server() -> _Server:
    with _heeding_signals():
        server = _Server()
    atexit.register(server.close)
    return server


def _output() -> Path:
    """A name, with .out and .err the empty files that take the output of a process."""
    said = _outputs() / secrets.token_hex(8)
    for suffix in (".out", ".err"):
        said.with_suffix(suffix).touch()
    return said


@cache
def _outputs() -> Path:
    """A folder outside those of the trials."""
    folder = tempfile.TemporaryDirectory(prefix="faults-output-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
