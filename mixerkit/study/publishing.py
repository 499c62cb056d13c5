"""What a finished study leaves: a results file with a row for each arm, and figures beside it."""

from pathlib import Path
from typing import Any

import torch

from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.lock import Lock
from mixerkit.insight.canvas import can_draw
from mixerkit.results import read_results, write_results
from mixerkit.spec.strict import to_dict
from mixerkit.study.arms import Row, averaged, rank_correlation, ranked_by
from mixerkit.study.figures import EQUAL, figures
from mixerkit.study.grid import Study
from mixerkit.study.permutation import identity
from mixerkit.study.runner import StudyFolder
from mixerkit.study.timing import speeds

COSTS = ("training_macs", "parameters", "step_seconds")


def is_due(folder: StudyFolder, out: Path) -> bool:
    """Whether every run has its row, some with figures, and `out` does not hold them yet."""
    rows = folder.rows()
    if len(rows) < len(folder.configurations) or all("error" in row for _, row in rows):
        return False
    return not out.exists() or _averages(read_results(out)) != averaged(rows)


def _averages(results: dict[str, Any]) -> list[Row]:
    """The rows of a file without what was timed."""
    timed = ("step_seconds", "images_per_second")
    return [{name: row[name] for name in row if name not in timed} for row in results["rows"]]


def publish(folder: StudyFolder, out: Path, command: str) -> list[Path]:
    """Time every arm's model, write the figures and then the file, and say which. By one process
    at a time: `checkpoint.lock.Taken` where another one does it."""
    lock = Lock(folder.path / "claims")
    try:
        return _publish(folder, out, command)
    finally:
        lock.release()


def _publish(folder: StudyFolder, out: Path, command: str) -> list[Path]:
    rows = folder.rows()
    arms = averaged(rows)
    first = {tuple(one.arm.items()): one for one, _ in reversed(rows)}
    chosen = [first[tuple(arm["levels"].items())] for arm in arms]
    arms = [arm | speed for arm, speed in zip(arms, speeds(chosen), strict=True)]
    failed = sum("error" in row for _, row in rows)
    pictures = figures(arms) if can_draw() else {}
    paths = [out.with_name(f"{out.stem}-{name}.png") for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, picture)
    write_results(
        out,
        name=folder.study.name,
        command=command,
        settings=settings_of(folder, arms) | {"failed": failed},
        rows=arms,
    )
    return [out, *paths]


def settings_of(folder: StudyFolder, arms: list[Row]) -> dict[str, Any]:
    """What all arms have in common, and how their order by each cost agrees with that by
    accuracy (Spearman's rank correlation)."""
    assert isinstance(folder.study, Study)
    match = folder.study.match
    found: dict[str, Any] = {
        "recipe": to_dict(folder.study.base),
        "matched_by": match.by,
        "threads_of_timing": torch.get_num_threads(),
    }
    if match.by != "nothing":
        found["changed"] = match.change
    accuracy = [arm[ranked_by(arms)] for arm in arms]
    if None not in accuracy and len(set(accuracy)) > 1:
        for name in COSTS:
            costs = [arm[name] for arm in arms]
            if max(costs) > EQUAL * min(costs):
                found[f"rank_correlation_{name}"] = rank_correlation(costs, accuracy)
    if any(one.order for one in folder.configurations):
        found["identity"] = identity()
    return found
