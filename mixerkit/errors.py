"""What a command says when it cannot go on, or only just, and the exit code it ends with.

A message says what was expected, what was found and what to do; the command line prints it
as one block without a traceback.
"""

import contextlib
import difflib
import shlex
import sys
from collections.abc import Iterable
from typing import TypeVar

from mixerkit import launch

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_REFUSED = 3


def exit_code_for_signal(number: int) -> int:
    """Exit code of a run that a signal ended after its state was saved (128 + signal)."""
    return 128 + number


class UserError(ValueError):
    """The input cannot be used: the message says what was expected, found, and what to do."""

    exit_code = EXIT_BAD_INPUT
    resumable = False
    """Whether it ended a run that had gone on, so that a resume is worth a try."""


class Unreadable(UserError):
    """The system would not read a file now, which says nothing about what is in it."""


class RunFailed(RuntimeError):
    """The work began and could not be finished, for example because the loss became NaN."""

    exit_code = EXIT_FAILED


class Refused(RuntimeError):
    """A gate refused the result: the message carries the measured figures."""

    exit_code = EXIT_REFUSED


Error = TypeVar("Error", bound=BaseException)
SAID_ELSEWHERE = "is_said_elsewhere"
"""Marks an error that another process says."""


def marked(error: Error, mark: str) -> Error:
    """The error, with a mark that is found on whatever is raised from it."""
    error.__dict__[mark] = True
    return error


def is_marked(error: BaseException | None, mark: str) -> bool:
    """Whether an error, or what it came from, has the mark."""
    known: list[BaseException] = []  # an error may have been raised from itself
    while error is not None and error not in known:
        if error.__dict__.get(mark):
            return True
        known.append(error)
        error = error.__cause__
    return False


def warn(text: str) -> None:
    """One line on stderr about something that does not stop the work; nor does a lost stderr. Of
    several processes that train together the first one speaks."""
    if sys.stderr is not None and launch.rank() == 0:
        with contextlib.suppress(OSError, ValueError):
            print(f"warning: {text}", file=sys.stderr)


def how_to_install(package: str) -> str:
    """The command that adds `package` to this very Python, in any shell."""
    return f"{shlex.quote(sys.executable)} -m pip install {package}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that `word` may be a misspelling of, or an empty string; capital letters make
    no difference."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), list(names), n=1, cutoff=0.6)
    return names[near[0]] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the known name `nearest` to `word`, or an empty string."""
    near = nearest(word, known)
    return f" Did you mean '{near}'?" if near else ""


def unknown(what: str, word: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a list: names the list and the nearest entry."""
    names = list(known)
    return UserError(
        f"Unknown {what} '{word}'.{did_you_mean(word, names)} Known: {', '.join(names)}."
    )
