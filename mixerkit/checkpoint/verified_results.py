"""What a run leaves behind as parts of it: figures, model and report, sound or to be made again."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.find import at
from mixerkit.checkpoint.merge import read_tensors_of
from mixerkit.checkpoint.opening import is_finished
from mixerkit.checkpoint.outcome import (
    MODEL,
    REPORT,
    evaluation_entry,
    evaluation_problem,
    model_problem,
    report_problem,
    was_drawn,
)
from mixerkit.checkpoint.part import NO_CHECKSUM, Part, problem_of, size_of, text_of
from mixerkit.checkpoint.records import EVALUATION

AGAIN = "A resume makes it again."


def parts_of_results(path: Path, running: bool) -> Iterator[Part]:
    """evaluation.json, model/ and report.html, as far as they are there or should be.

    While the run is `running` they may be replaced one by one, and are not held together.
    """
    if is_finished(path) and not running:
        yield from _evaluation(path)
    elif os.path.lexists(path / EVALUATION):
        problem = problem_of(partial(read_json, path / EVALUATION))
        yield Part(EVALUATION, size_of(path / EVALUATION), problem, NO_CHECKSUM, checked=False)
    if os.path.lexists(path / MODEL) or was_drawn(path):
        problem = text_of(lambda: _made_again(model_problem(path)))
        problem = problem or problem_of(lambda: read_tensors_of(at(path / MODEL)))
        yield Part(MODEL, size_of(path / MODEL), problem)
    yield from _report(path)


def _evaluation(path: Path) -> Iterator[Part]:
    problem = text_of(lambda: _made_again(evaluation_problem(path)))
    known = evaluation_entry(path) is not None
    if problem or os.path.lexists(path / EVALUATION):
        note = "" if known else NO_CHECKSUM
        size = size_of(path / EVALUATION)
        yield Part(EVALUATION, size, problem, note, checked=known)


def _report(path: Path) -> Iterator[Part]:
    problem = text_of(lambda: report_problem(path))
    if problem or os.path.lexists(path / REPORT):
        yield Part(REPORT, size_of(path / REPORT), problem, NO_CHECKSUM, checked=False)


def _made_again(problem: str) -> str:
    return problem and f"{problem} {AGAIN}"
