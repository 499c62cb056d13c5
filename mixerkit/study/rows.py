"""What a run of a study came to: the row that is written when it is done."""

from pathlib import Path
from typing import Any

from mixerkit.checkpoint.run import RunFolder
from mixerkit.spec.strict import to_dict
from mixerkit.study.grid import Configuration
from mixerkit.study.peers import cost_of
from mixerkit.training.result import TrainingResult

Row = dict[str, Any]
LEFT_OUT = "left_out"


def figures(one: Configuration, path: Path, result: TrainingResult) -> Row:
    """What a row holds of a run that came to its end."""
    with RunFolder.open(path) as run:
        rows, model = run.metrics(), run.recipe().model
    last = {row["split"]: row for row in rows}
    course = [[row["epoch"], row["top1"]] for row in rows if row["split"] == "validation"]
    parameters, macs = cost_of(one.peer, model)
    optional = {"course": course if len(course) > 1 else [], LEFT_OUT: list(result.left_out)}
    return {
        "config": to_dict(model),
        "peer": one.peer,
        "parameters": parameters,
        "macs": macs,
        # backward takes twice the forward pass
        "training_macs": 3 * macs * result.steps * one.recipe.batch_size,
        "steps": result.steps,
        "seconds": result.seconds,
        "training_loss": last["train"]["loss"],
        "held_out_accuracy": last["validation"]["top1"] if "validation" in last else None,
        "held_out_nll": last["validation"]["nll"] if "validation" in last else None,
        "test_accuracy": last["test"]["top1"] if "test" in last else None,
        "test_nll": last["test"]["nll"] if "test" in last else None,
    } | {key: value for key, value in optional.items() if value}


def sentence(row: Row) -> str:
    """A row for a person."""
    if "error" in row:
        return f"failed: {row['error'].splitlines()[0]}"
    for split in ("held_out", "test"):
        if (found := row[f"{split}_accuracy"]) is not None:
            accuracy = f"{split.replace('_', '-')} {100 * found:.2f} %"
            break
    else:
        accuracy = "not measured"
    return f"{accuracy}, {row['parameters']:,} parameters, {row['seconds']:.0f} s"
