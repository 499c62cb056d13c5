"""What a finished run leaves behind, held against what is known of it: model, figures, report."""

import os
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

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

MODEL, REPORT, FIGURES = "model", "report.html", "figures"
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
    problems = []
    for check in (check_model, check_evaluation):
        try:
            check(path)
        except (Unreadable, OtherFormat):
            raise
        except UserError as error:
            problems.append(without_advice(error))
    return problems


def check_model(path: Path) -> None:
    """Raise `UserError` unless the model of the run in `path` is as it was kept."""
    if not os.path.lexists(path / MODEL):
        raise UserError(f"{path / MODEL} is missing.")
    verify_folder(path / MODEL, kind="model", must_list=(WEIGHTS, CONFIG))


def check_evaluation(path: Path) -> None:
    """Raise `UserError` unless the figures of the finished run in `path` are as they were kept, or
    there never were any."""
    entry = evaluation_entry(path)
    if entry:
        check_file(path, EVALUATION, entry)
    elif (path / EVALUATION).exists():
        read_json(path / EVALUATION)
    elif any(row["split"] in ("validation", "test") for row in read_metrics(path / METRICS)):
        raise UserError(f"{path / EVALUATION} is missing.")


def evaluation_entry(path: Path) -> dict[str, Any] | None:
    """Size and SHA-256 of evaluation.json by the model's manifest; None where it does not say."""
    try:
        entry = read_manifest(path / MODEL)["about"].get("evaluation")
    except UserError:
        return None
    return entry if isinstance(entry, dict) else None


def was_drawn(path: Path) -> bool:
    """Whether figures of the run's model were drawn once, so that there was a model."""
    return (path / FIGURES / "filters.png").exists()


def check_report(path: Path) -> None:
    """Raise `UserError` where the report of the run in `path` is cut, or gone while the figure that
    is drawn of a kept model is there."""
    report = path / REPORT
    if not os.path.lexists(report):
        if was_drawn(path):
            raise UserError(f"{report} is missing. {_written_again(path)}")
        return
    content = report.read_bytes().strip()
    if not (content.startswith(FIRST_OF_PAGE) and content.endswith(LAST_OF_PAGE)):
        raise UserError(f"{report} is not whole. {_written_again(path)}")


def check_figures(path: Path) -> None:
    """Raise `UserError` unless every figure of the run in `path` is a PNG whose parts have the
    checksums that they carry."""
    for figure in sorted((path / FIGURES).glob("*.png")):
        try:
            with Image.open(figure, formats=["PNG"]) as image:
                image.verify()
        except FileNotFoundError:  # it is just being drawn again
            continue
        except Exception as error:  # Pillow has a dozen kinds
            raise UserError(
                f"{figure} is no whole PNG ({error}). {_written_again(path)}"
            ) from error


def _written_again(path: Path) -> str:
    return f"`mixer runs report {shlex.quote(str(path))}` writes it again."
