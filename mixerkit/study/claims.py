"""Claims of the paper beside what was measured here, with a verdict each.

An experiment (`experiments.py`) reads one file of `results/` and comes to a verdict by a rule.
Small experiments say nothing about accuracies on ImageNet: such claims are "not testable at this
scale", and what it would take is said.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixerkit.errors import UserError
from mixerkit.results import read_results
from mixerkit.spec.paper import CLAIMS, Claim
from mixerkit.study.experiments import (
    EXPERIMENTS,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Experiment,
)

NOT_TESTABLE, NOT_MEASURED = "not testable at this scale", "not measured"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE, NOT_MEASURED)


@dataclass(frozen=True)
class Row:
    """One claim. `evidence`: the results file, the command that writes it, or what it would take;
    `rule`: when the claim counts as reproduced, "" without an experiment."""

    claim: str
    says: str
    source: str
    published: str
    measured: str
    verdict: str
    evidence: str
    rule: str


def rows(folder: Path) -> list[Row]:
    """All claims, by the files in `folder`."""
    return [_row(claim, EXPERIMENTS.get(claim.name), folder) for claim in CLAIMS]


def _row(claim: Claim, experiment: Experiment | None, folder: Path) -> Row:
    about = (claim.name, claim.says, claim.source, published(claim))
    if experiment is None:
        return Row(*about, "", NOT_TESTABLE, claim.needs, "")
    path = folder / experiment.file
    if not path.exists():
        return Row(*about, "", NOT_MEASURED, experiment.command, experiment.rule)
    results = read_results(path)
    problem = _problem(results, experiment)
    if problem:
        return Row(*about, f"{path}: {problem}", NOT_MEASURED, experiment.command, experiment.rule)
    try:
        found = experiment.find(results)
    except (LookupError, StopIteration, TypeError, ValueError) as error:
        raise UserError(
            f"{path} lacks what the claim {claim.name} is tested by ({error!r}): write it again "
            f"with `{experiment.command}`."
        ) from error
    return Row(*about, found.measured, found.verdict, f"{path}", experiment.rule)


def _problem(results: dict[str, Any], experiment: Experiment) -> str:
    """Why a file does not count, or nothing."""
    if results["command"] != experiment.command:
        return f"written by another command, {results['command']}"
    failed = results["settings"].get("failed", 0)
    return f"{failed} runs failed" if failed else ""


def published(claim: Claim) -> str:
    """The paper's figure, also by its tables where these say something else."""
    if claim.value is None:
        return claim.unit
    text = f"{claim.value:.3g}×" if claim.unit == "×" else f"{claim.value:g} {claim.unit}"
    tables = f" (by its tables {claim.in_tables:.2f})" if claim.in_tables is not None else ""
    return text + tables
