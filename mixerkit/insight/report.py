"""A run's report: `figures/*.png`, and `report.html` as one file that can be sent to anybody."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixerkit.checkpoint import outcome
from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.manifest import OtherFormat, verify_folder, without_advice
from mixerkit.checkpoint.records import EVALUATION, METRICS, TIMING
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import Unreadable, UserError
from mixerkit.insight import curves, figures
from mixerkit.insight.complete import check_evaluation, check_rows, check_timings
from mixerkit.insight.paper_figures import figure_6, figure_7
from mixerkit.insight.story import RunFacts, tell
from mixerkit.insight.weights import has_token_weights
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Recipe

BLOCKS_DRAWN = 3
"""Token-mixing blocks whose units are drawn, as in the paper's figure 5."""


def write_report(run: RunFolder) -> Path:
    """Draw the run's figures and write its report; returns the path of `report.html`.

    Works for a run that is not finished too: the report says what is still missing. Needs
    matplotlib. Both are replaced as whole files, so a reader never sees half of one.
    """
    facts = read_facts(run)
    pngs = draw(facts)
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    for name, png in pngs.items():
        write_atomic(folder / f"{name}.png", png)
    path = run.path / "report.html"
    write_atomic(path, tell(facts, pngs).encode("utf-8"))
    return path


def read_facts(run: RunFolder) -> RunFacts:
    """The run folder's content, as the report needs it; `UserError` names what is damaged, or lacks
    a figure."""
    has_model = (run.path / "model").is_dir()
    metrics, timings = run.metrics(), run.timings()
    check_rows(run.path / METRICS, metrics)
    check_timings(run.path / TIMING, timings)
    return RunFacts(
        name=run.path.resolve().name,
        state="finished" if has_model else run.state(),  # its own writer still holds the lock
        recipe=run.recipe(),
        about=verify_folder(run.path),
        choices=run.choices(),
        metrics=metrics,
        timings=timings,
        evaluation=_evaluation(run),
        model=load(run.path) if has_model else None,
    )


def _evaluation(run: RunFolder) -> dict[str, Any] | None:
    """The figures that were measured at the end of the run, as they were then."""
    try:
        if run.is_finished():
            outcome.check_evaluation(run.path)
    except (Unreadable, OtherFormat):
        raise
    except UserError as error:
        resume = f"`mixer train --resume {shlex.quote(str(run.path))}`"
        raise UserError(f"{without_advice(error)} {resume} makes it again.") from error
    content = run.evaluation()
    if content is not None:
        check_evaluation(run.path / EVALUATION, content)
    return content


def draw(facts: RunFacts) -> dict[str, bytes]:
    """Every figure that the run has the data for: PNG by file name, without the ending."""
    return _curves(facts) | _accuracy_figures(facts.evaluation) | _weight_figures(facts.model)


def _curves(facts: RunFacts) -> dict[str, bytes]:
    rows, kinds = facts.metrics, {row["split"] for row in facts.metrics}
    drawn: dict[str, bytes] = {}
    if "train" in kinds:
        softmax = facts.recipe.loss.kind == "softmax"
        drawn["loss"] = curves.loss_curve(rows, _training_loss(facts.recipe), shared=softmax)
    if kinds & {"validation", "test"}:
        drawn["accuracy"] = curves.accuracy_curve(rows)
    if "train" in kinds:
        drawn["learning-rate"] = curves.learning_rate_curve(rows)
    return drawn


def _training_loss(recipe: Recipe) -> str:
    if recipe.loss.kind == "sigmoid":
        return "training loss (sigmoid, summed over classes)"
    smoothing = recipe.loss.label_smoothing
    return f"training loss (label smoothing {smoothing:g})" if smoothing else "training loss"


def _accuracy_figures(evaluation: Mapping[str, Any] | None) -> dict[str, bytes]:
    if evaluation is None:
        return {}
    top1 = evaluation["figures"]["top1"]
    drawn = {
        "recall": figures.class_recall(evaluation["per_class"], top1),
        "confusion": figures.confusion_matrix(evaluation["confusion"], evaluation["class_names"]),
    }
    if evaluation["mistakes"]:
        drawn["mistakes"] = figures.mistakes_sheet(evaluation["mistakes"])
    return drawn


def _weight_figures(model: MlpMixer | None) -> dict[str, bytes]:
    if model is None:
        return {}
    drawn = {"filters": figure_7(model)}
    for i in range(min(BLOCKS_DRAWN, model.config.depth) if has_token_weights(model) else 0):
        drawn[f"token-units-{i + 1}"] = figure_6(model, [i])
    return drawn
