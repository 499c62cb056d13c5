"""What a finished run leaves behind, held against what is known of it: model, figures, report."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.manifest import (
    OtherFormat,
    check_file,
    describe_file,
    read_manifest,
    verify_folder,
    without_advice,
)
from mixerkit.checkpoint.records import EVALUATION, METRICS, read_metrics
from mixerkit.checkpoint.stored import CONFIG, WEIGHTS
from mixerkit.errors import Unreadable, UserError

MODEL, REPORT = "model", "report.html"
FIRST_OF_PAGE, LAST_OF_PAGE = b"<!doctype html>", b"</html>"


def vouched(path: Path) -> dict[str, Any]:
    """What the model's manifest says besides, for the run's other files: evaluation.json as it is
    now, where there is one."""
    evaluation = path / EVALUATION
    return {"evaluation": describe_file(evaluation)} if evaluation.exists() else {}


def damaged_results(path: Path) -> list[str]:
    """What is wrong with the model and the figures of a run that was finished once; they can be
    made again from its newest checkpoint. Raises `Unreadable` or `OtherFormat` for what may be
    whole."""
    if not os.path.lexists(path / MODEL) and not was_drawn(path):
        return []
    return [problem for problem in (model_problem(path), evaluation_problem(path)) if problem]


def model_problem(path: Path) -> str:
    """What is wrong with the model of the run in `path`; empty where nothing is."""
    names = (WEIGHTS, CONFIG)
    if not os.path.lexists(path / MODEL):
        return f"{path / MODEL} is missing."
    return _problem_with(lambda: verify_folder(path / MODEL, kind="model", must_list=names))


def evaluation_problem(path: Path) -> str:
    """What is wrong with the figures of the finished run in `path`; empty where nothing is."""
    entry = evaluation_entry(path)
    if entry:
        return _problem_with(lambda: check_file(path, EVALUATION, entry))
    if (path / EVALUATION).exists():
        return _problem_with(lambda: read_json(path / EVALUATION))
    rows = read_metrics(path / METRICS)
    if any(row["split"] in ("validation", "test") for row in rows):
        return f"{path / EVALUATION} is missing."
    return ""


def evaluation_entry(path: Path) -> dict[str, Any] | None:
    """Size and SHA-256 of evaluation.json by the model's manifest; None where it does not say."""
    try:
        entry = read_manifest(path / MODEL)["about"].get("evaluation")
    except UserError:
        return None
    return entry if isinstance(entry, dict) else None


def was_drawn(path: Path) -> bool:
    """Whether figures of the run's model were drawn once, so that there was a model."""
    return (path / "figures" / "filters.png").exists()


def report_problem(path: Path) -> str:
    """What is wrong with the report of the run in `path`: it is cut, or gone while the figure that
    is drawn of a kept model is there. Empty where nothing is, or none was ever written."""
    report = path / REPORT
    again = f"`mixer runs report {shlex.quote(str(path))}` writes it again."
    if not os.path.lexists(report):
        return f"{report} is missing. {again}" if was_drawn(path) else ""
    content = report.read_bytes().strip()
    if content.startswith(FIRST_OF_PAGE) and content.endswith(LAST_OF_PAGE):
        return ""
    return f"{report} is not whole. {again}"


def _problem_with(check: Callable[[], object]) -> str:
    """What `check` says is wrong, without advice; empty where it returns."""
    try:
        check()
    except (Unreadable, OtherFormat):
        raise
    except UserError as error:
        return without_advice(error)
    return ""
