"""What a run came to: just now, or read from the folder of one that is finished."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.opening import reached_step
from mixerkit.checkpoint.records import EVALUATION
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.evaluation.accuracy import Accuracy, ClassAccuracy


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. `seconds` is training time without evaluation, over all processes;
    `images_per_second` that of this process, 0 when it made no step; `interrupted` is the signal
    that stopped it early, or 0. `left_out`: images that could not be used, as rows of
    quarantine.jsonl; without those that were whole again when the run went on."""

    run: Path
    steps: int
    seconds: float
    images_per_second: float
    validation: Accuracy | None
    test: Accuracy | None
    interrupted: int = 0
    left_out: tuple[dict[str, Any], ...] = ()


def result_of(run: RunFolder) -> TrainingResult:
    """The result of a finished run, as far as its folder tells: of the held-out and the test
    images, only those that were measured last are known in full, and all images that were ever left
    out count as that."""
    content = run.evaluation() or {}
    try:
        found = accuracy_of(content) if content else None
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.path / EVALUATION} does not hold the figures that a run writes ({error!r}): "
            f"restore it from a copy."
        ) from error
    split = content.get("split")
    return TrainingResult(
        run=run.path,
        steps=reached_step(run.path),
        seconds=max((row["seconds"] for row in run.timings()), default=0.0),
        images_per_second=0.0,
        validation=found if split == "validation" else None,
        test=found if split == "test" else None,
        left_out=tuple(run.quarantine()),
    )


def accuracy_of(content: dict[str, Any]) -> Accuracy:
    """The accuracy that `describe_evaluation` (keep.py) wrote down."""
    classes = tuple(ClassAccuracy(**row) for row in content["per_class"])
    return Accuracy(per_class=classes, confusion=content["confusion"], **content["figures"])
