"""What a finished study leaves: a results file with a row for each arm, and figures beside it."""

from pathlib import Path
from typing import Any

from mixerkit.insight.canvas import can_draw
from mixerkit.results import write_results
from mixerkit.study.arms import Row, averaged, rank_correlation, ranked_by
from mixerkit.study.figures import figures
from mixerkit.study.permutation import identity
from mixerkit.study.runner import StudyFolder
from mixerkit.study.timing import speeds

COSTS = ("training_macs", "parameters", "step_seconds")


def publish(folder: StudyFolder, out: Path, command: str) -> list[Path]:
    """Time every arm's model, write the file and the figures, and say which. At least one run must
    have come to its end."""
    rows = folder.rows()
    arms = averaged(rows)
    first = {tuple(one.arm.items()): one for one, _ in reversed(rows)}
    chosen = [first[tuple(arm["levels"].items())] for arm in arms]
    arms = [arm | speed for arm, speed in zip(arms, speeds(chosen), strict=True)]
    failed = sum("error" in row for _, row in rows)
    write_results(
        out,
        name=folder.study.name,
        command=command,
        settings=settings_of(folder, arms) | {"failed": failed},
        rows=arms,
    )
    written = [out]
    for name, picture in figures(arms).items() if can_draw() else ():
        path = out.with_name(f"{out.stem}-{name}.png")
        path.write_bytes(picture)
        written.append(path)
    return written


def settings_of(folder: StudyFolder, arms: list[Row]) -> dict[str, Any]:
    """What all arms have in common, and how their order by each cost agrees with that by
    accuracy (Spearman's rank correlation)."""
    recipe, match = folder.study.base, folder.study.match
    found: dict[str, Any] = {
        "recipe": recipe.name,
        "duration": recipe.duration,
        "batch_size": recipe.batch_size,
        "optimizer": recipe.optimizer.name,
        "learning_rate": recipe.optimizer.lr,
        "held_out": recipe.data.holdout,
        "matched_by": match.by,
    }
    if match.by != "nothing":
        found["changed"] = match.change
    accuracy = [arm[ranked_by(arms)] for arm in arms]
    if len(set(accuracy)) > 1:
        for name in COSTS:
            costs = [arm[name] for arm in arms]
            if len(set(costs)) > 1:
                found[f"rank_correlation_{name}"] = rank_correlation(costs, accuracy)
    if any(one.order for one in folder.configurations):
        found["identity"] = identity()
    return found
