"""What a run leaves behind as parts of it: figures, model and report, sound or to be made again."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.find import at
from mixerkit.checkpoint.manifest import OtherFormat, without_advice
from mixerkit.checkpoint.merge import read_tensors_of
from mixerkit.checkpoint.opening import is_finished
from mixerkit.checkpoint.outcome import (
    FIGURES,
    MODEL,
    REPORT,
    check_evaluation,
    check_figures,
    check_model,
    check_report,
    evaluation_entry,
    was_drawn,
)
from mixerkit.checkpoint.part import NO_CHECKSUM, Part, problem_of, size_of
from mixerkit.checkpoint.records import EVALUATION, STOPPED, read_stopped
from mixerkit.errors import Unreadable, UserError

AGAIN = "A resume makes it again."


def parts_of_results(path: Path, running: bool) -> Iterator[Part]:
    """evaluation.json, model/, figures/, report.html and stopped.json, as far as they are there or
    should be.

    While the run is `running` they may be replaced one by one, and are not held together.
    """
    if is_finished(path) and not running:
        yield from _evaluation(path)
    elif os.path.lexists(path / EVALUATION):
        yield _form_only(path, EVALUATION, lambda: read_json(path / EVALUATION))
    if os.path.lexists(path / MODEL) or was_drawn(path):
        problem, again = _problem_of_result(path, check_model)
        problem = problem or problem_of(lambda: read_tensors_of(at(path / MODEL)))
        yield Part(MODEL, size_of(path / MODEL), problem, made_again=again)
    if os.path.lexists(path / FIGURES):
        yield _form_only(path, FIGURES, lambda: check_figures(path))
    report = _form_only(path, REPORT, lambda: check_report(path))
    if report.problem or os.path.lexists(path / REPORT):
        yield report
    if os.path.lexists(path / STOPPED):
        yield _form_only(path, STOPPED, lambda: read_stopped(path / STOPPED))


def _form_only(path: Path, name: str, check: Callable[[], object]) -> Part:
    """A part that nothing vouches for: only its form is looked at."""
    return Part(name, size_of(path / name), problem_of(check), NO_CHECKSUM, checked=False)


def _evaluation(path: Path) -> Iterator[Part]:
    problem, again = _problem_of_result(path, check_evaluation)
    known = evaluation_entry(path) is not None
    if problem or os.path.lexists(path / EVALUATION):
        note = "" if known else NO_CHECKSUM
        size = size_of(path / EVALUATION)
        yield Part(EVALUATION, size, problem, note, checked=known, made_again=again)


def _problem_of_result(path: Path, check: Callable[[Path], None]) -> tuple[str, bool]:
    """What is wrong with a result of a finished run, and whether a resume makes it again: not what
    may be whole, and is only not read now or not by this version."""
    try:
        check(path)
    except (Unreadable, OtherFormat, OSError) as error:
        return str(error), False
    except UserError as error:
        return f"{without_advice(error)} {AGAIN}", True
    return "", False
