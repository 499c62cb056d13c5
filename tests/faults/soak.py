"""Long runs in one process: what grows, and which checkpoints stay."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.rows import read_rows
from mixerkit.spec.recipe import Augment, Evaluate, Save
from mixerkit.spec.strict import write_yaml
from tests.faults.child import start_fork
from tests.faults.fault import Fault, Trial
from tests.faults.sample import DRAW_NOTHING, KEEP, MUON

EVERY = 40
"""Steps from one evaluation and save to the next."""
SAVES = (25, 500)
"""Of the first run and the second."""
GROWTH = 4 * 2**20
"""Bytes by which a run may grow after its first quarter: less than one in ten of its states."""
SECONDS = 600.0

SOAK = replace(
    MUON,
    name="soak",
    model=replace(MUON.model, width=4, depth=1, token_width=4, channel_width=4),
    augment=Augment(flip=True, mixup=0.2),
    evaluate=Evaluate(every=f"{EVERY} steps"),
    save=Save(every=f"{EVERY} steps", keep=KEEP),
    batch_size=4,
    accumulation=1,
)


def soak(trial: Trial) -> None:
    """Memory and open files stay as they are; the newest checkpoints and the best one are kept."""
    saves = SAVES[trial.number]
    recipe = replace(SOAK, duration=f"{saves * EVERY} steps")
    (trial.folder / "recipe.yaml").write_text(write_yaml(recipe))
    record = trial.folder / "saves.jsonl"
    hooks = (DRAW_NOTHING, ("record_saves", (str(record),)))
    words = ["train", "recipe.yaml", "--out", "run"]
    ended = start_fork(words, trial.folder, hooks).wait(SECONDS)
    assert ended.code == 0, ended
    rows = read_rows(record)
    assert len(rows) == saves
    _assert_flat(rows)
    _assert_kept(rows, trial.folder / "run")


def _assert_flat(rows: list[dict[str, Any]]) -> None:
    """The peak of the memory rises no more, and no file stays open."""
    settled = rows[len(rows) // 4 :]
    growth = settled[-1]["peak_bytes"] - settled[0]["peak_bytes"]
    assert growth <= GROWTH, f"grew by {growth:,} bytes in {len(settled)} saves"
    assert len({row["open_files"] for row in rows}) == 1, [row["open_files"] for row in rows]


def _assert_kept(rows: list[dict[str, Any]], run: Path) -> None:
    """After every save: the newest checkpoints, and the first of the best until then."""
    metrics = read_rows(run / "metrics.jsonl")
    measured = {row["step"]: row["top1"] for row in metrics if row["split"] == "validation"}
    for number, row in enumerate(rows, start=1):
        saved = range(EVERY, number * EVERY + 1, EVERY)
        best = max(saved, key=lambda step: (measured[step], -step))
        assert row["steps"] == sorted({*saved[-KEEP:], best}), (number, row, best)


FAULTS = (
    Fault(
        "F18",
        "20 000 steps with 500 saves in one process, after 1 000 with 25",
        "memory and open files stay flat, exactly the two newest checkpoints and the best are kept",
        trials=len(SAVES),
        short=1,
        run=soak,
        counts="runs",
    ),
)
