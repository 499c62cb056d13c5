"""The small runs that the trials kill, stop and starve: recipes, ends to compare with, comparing.

A run is four epochs of eight steps on real images, about half a second of work, and has every part
whose state could be lost on the way.
"""

import atexit
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.manifest import verify_folder
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.rows import read_rows
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.step_folders import folder_of
from mixerkit.spec.recipe import Evaluate, Loss, NotFinite, Optimizer, Save, Schedule
from mixerkit.spec.strict import write_yaml
from tests.faults.child import Child, Hook, start_command, start_fork
from tests.training.runs import RECIPE as WHOLE

STEPS, EPOCH, SAVE_EVERY, KEEP = 32, 8, 5, 2

MUON = replace(
    WHOLE,
    name="muon",
    evaluate=Evaluate(every="3 steps", batch_size=40),
    save=Save(every=f"{SAVE_EVERY} steps", keep=KEEP),
    duration=f"{STEPS} steps",
    batch_size=60,
    compile="off",
    threads=1,
)
ADAMW = replace(
    MUON,
    name="adamw",
    optimizer=Optimizer(name="adamw", lr=0.003),
    data=replace(MUON.data, workers=2),
    augment=replace(MUON.augment, crop="inception", shift=0, mix_group=10),  # cropped by threads
    schedule=Schedule(decay="cosine"),
    compile="auto",
)
SGD = replace(
    MUON,
    name="sgd",
    optimizer=Optimizer(name="sgd", lr=0.05, clip=1.0),
    loss=Loss(kind="sigmoid", label_smoothing=0.05, class_weights="balanced"),
    ema=0.0,
    activation_checkpointing=True,
)
ROLLING = replace(SGD, name="rolling", not_finite=NotFinite("roll back"))
RECIPES = {recipe.name: recipe for recipe in (MUON, ADAMW, SGD)}
ROLLS_BACK: Hook = ("poison_loss", (2 * EPOCH + 1,))
"""What makes the run of `ROLLING` go back: a step between two of its checkpoints."""

DRAW_NOTHING: Hook = ("draw_nothing", ())
"""Drawing a report takes three times as long as the run."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to; `seconds` from start to end."""

    path: Path
    seconds: float


@cache
def undisturbed(name: str, hooks: tuple[Hook, ...] = (), real: bool = False) -> Undisturbed:
    """The run of recipe `name`, made when it is first asked for; `real`: as people start it."""
    folder = Path(tempfile.mkdtemp(prefix="faults-undisturbed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    started = time.perf_counter()
    child = go_on(folder, name, hooks, real)
    ended = child.wait()
    assert ended.code == 0, ended
    return Undisturbed(folder / "run", time.perf_counter() - started)


def go_on(folder: Path, name: str, hooks: tuple[Hook, ...] = (), real: bool = False) -> Child:
    """Start the run of recipe `name` in `folder`/run, or go on with the one that is there."""
    if is_run(folder / "run"):
        words = ["train", "--resume", "run"]
    else:
        write_recipe(folder, name)
        words = ["train", "recipe.yaml", "--out", "run"]
    return (
        start_command(words, folder) if real else start_fork(words, folder, (DRAW_NOTHING, *hooks))
    )


def write_recipe(folder: Path, name: str) -> None:
    """Put the recipe into `folder`/recipe.yaml."""
    (folder / "recipe.yaml").write_text(write_yaml((RECIPES | {ROLLING.name: ROLLING})[name]))


# -- what a run reached, and whether two are the same ----------------------------------------


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    if not is_run(run):
        return 0
    with RunFolder.open(run) as opened:
        return max(opened.checkpoints.steps(), default=0)


def reached_step(run: Path) -> int:
    """The last step that the run has written a row of metrics for, or has left out after it."""
    rows = read_rows(run / "metrics.jsonl")
    reached = max((row["step"] for row in rows if row["split"] == "train"), default=0)
    newest = newest_step(run)
    if newest > reached:
        state = read_json(folder_of(run / "checkpoints", newest) / "state.json")
        while reached < newest and reached + 1 in state["left_out"]:  # it has no loss to write
            reached += 1
    return reached


def left_over(run: Path) -> list[Path]:
    """What killed or failing writers left behind."""
    return [path for path in run.rglob("*") if path.name.startswith(UNFINISHED)]


def assert_same_end(run: Path, other: Path, shifted: bool = False) -> None:
    """Every file as the other run has it, nothing left over, every checkpoint sound.

    `shifted`: signals made `run` save at more steps than `other`, so that other checkpoints may
    have been pruned, and those that both have may know of other steps to come. Those that both have
    are compared but for that; the newest must be among them, and the best too, unless `run` saved a
    better one.
    """
    assert not left_over(run), left_over(run)
    for folder in (run / "checkpoints").iterdir():
        verify_folder(folder, kind="checkpoint")
    found, expected = comparable(run), comparable(other)
    if shifted:
        assert newest_step(run) == newest_step(other)
        assert best_step(run) >= best_step(other)
        found, expected = (
            of_now(without(found, only_in(run, other))),
            of_now(without(expected, only_in(other, run))),
        )
    names = sorted(found.keys() | expected.keys())
    differing = [name for name in names if found.get(name) != expected.get(name)]
    assert not differing, f"not as in the other run: {differing}"


TIMES = ("timing.jsonl", "report.html")
"""Seconds and images per second: no two runs agree on them."""


def comparable(run: Path) -> dict[str, bytes]:
    """Every file of a run by its path, except: `TIMES`; `lock`, which names the last process; and
    in the run's own manifest.json when it was created, with the checksum over that."""
    found = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("lock", *TIMES)
    }
    manifest = read_json(run / "manifest.json")
    del manifest["about"]["created"], manifest["sha256"]
    found["manifest.json"] = json.dumps(manifest).encode()
    return found


def best_step(run: Path) -> tuple[float, int]:
    """(accuracy on held-out images, minus its step) of the best checkpoint, the earliest of equals;
    (0, 0) without any that was measured."""
    states = [read_json(path) for path in (run / "checkpoints").glob("*/state.json")]
    measured = [(s["validation"], -s["step"]) for s in states if s["validation"] is not None]
    return max(measured, default=(0.0, 0))


def only_in(run: Path, other: Path) -> set[str]:
    """The checkpoints that `run` has and `other` has not."""
    return {path.name for path in (run / "checkpoints").iterdir()} - {
        path.name for path in (other / "checkpoints").iterdir()
    }


def without(files: dict[str, bytes], checkpoints: set[str]) -> dict[str, bytes]:
    """The files that are in none of these checkpoints."""
    return {name: text for name, text in files.items() if not checkpoints & {*Path(name).parts}}


def of_now(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same with checkpoints that do not know which steps after them are to be left out.

    A run that went back saves that when a signal comes, and not without one: its older checkpoints
    were written before it went back.
    """
    kept = dict(files)
    for name in [name for name in files if Path(name).name == "state.json"]:
        state = json.loads(files[name])
        state["left_out"] = [step for step in state["left_out"] if step <= state["step"]]
        described = Path(name).with_name("manifest.json").as_posix()
        manifest = json.loads(files[described])
        del manifest["sha256"], manifest["files"]["state.json"]
        kept[name], kept[described] = (json.dumps(of).encode() for of in (state, manifest))
    return kept
