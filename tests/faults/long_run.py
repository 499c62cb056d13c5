"""The long run: python -m tests.faults.long_run --seed N [--folder DIR] [--out FILE]

Trains a named recipe as people type it, ends it with kill -9 at random moments, goes on with it,
and writes down what came of it, a row for each seed. Stopped itself, it goes on where it was.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.records import EVALUATION
from mixerkit.checkpoint.rows import read_rows
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.results import read_results, write_results
from mixerkit.spec.strict import to_dict
from tests.faults.sample import newest_step

RECIPE, KILLS, MINUTES = "fashion-best", 6, 100.0
POLL = 1.0


@dataclass
class Story:
    """What happened to a run so far, kept beside it. `computing`: seconds for which a process was
    at work on it, starts and ends and what a kill threw away included; `processor`: seconds of all
    cores meanwhile. `kills`: that second of `computing`, and the step that the run went on from."""

    seed: int
    to_come: list[float]
    computing: float = 0.0
    processor: float = 0.0
    kills: list[tuple[float, int]] = field(default_factory=list)

    def keep(self, path: Path) -> None:
        """Write it down."""
        write_atomic(path, json.dumps(asdict(self)).encode())


def story_of(path: Path, seed: int, kills: int, minutes: float) -> Story:
    """The one that is kept, or a new one with its kills at random moments."""
    if path.is_file():
        return Story(**read_json(path))
    random = Random(seed)
    return Story(seed, sorted(random.uniform(0, minutes * 60) for _ in range(kills)))


def train(run: Path, story: Story, path: Path, start: list[str]) -> None:
    """Start the run, or go on with it, until it ends; kill it whenever it is time."""
    while True:
        go_on = ["--resume", str(run)] if is_run(run) else [*start, "--out", str(run)]
        command = [sys.executable, "-m", "mixerkit", "train", *go_on]
        before, started, used_before = story.computing, time.monotonic(), used()
        with subprocess.Popen(command) as process:
            try:
                while process.poll() is None:
                    time.sleep(POLL)
                    story.computing = before + time.monotonic() - started
                    if story.to_come and story.computing >= story.to_come[0]:
                        process.kill()
                        story.to_come.pop(0)
                        if process.wait() == -signal.SIGKILL:  # else it has just ended
                            story.kills.append((round(story.computing, 1), newest_step(run)))
                            print(f"killed after {story.computing / 60:.1f} minutes", flush=True)
                    story.keep(path)
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                story.processor += used() - used_before
                story.keep(path)
        if process.returncode == 0:
            return
        if process.returncode != -signal.SIGKILL:
            raise UserError(f"The run ended with exit code {process.returncode}.")


def used() -> float:
    """Seconds of processor that all processes took which were started here and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def row_of(run: Path, story: Story) -> dict[str, Any]:
    """What came of a finished run."""
    rows = read_rows(run / "metrics.jsonl")
    seconds = max(row["seconds"] for row in read_rows(run / "timing.jsonl"))
    held_out = [row["top1"] for row in rows if row["split"] == "validation"]
    figures = read_json(run / EVALUATION)["figures"]
    return {
        "seed": story.seed,
        "test_accuracy": figures["top1"],
        "test_nll": figures["nll"],
        "held_out_accuracy": held_out[-1],
        "minutes": round(story.computing / 60, 1),
        "processor_minutes": round(story.processor / 60, 1),
        "training_minutes": round(seconds / 60, 1),
        "kills_survived": len(story.kills),
        "killed_at_minute": [round(second / 60, 1) for second, _ in story.kills],
    }


def write(out: Path, row: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Put the seed's row into the results file, and mean and deviation over all seeds of the same
    recipe."""
    before = read_results(out) if out.is_file() else {"rows": [], "settings": {"recipe": recipe}}
    if before["settings"]["recipe"] | {"seed": 0} != recipe | {"seed": 0}:
        raise UserError(f"{out} holds runs of another recipe: give another --out.")
    rows = before["rows"]
    rows = sorted([*(r for r in rows if r["seed"] != row["seed"]), row], key=lambda r: r["seed"])
    found = [r["test_accuracy"] for r in rows]
    write_results(
        out,
        name="fashion-best",
        command="python -m tests.faults.long_run --seed N",
        settings={
            "recipe": recipe,
            "test_accuracy_mean": mean(found),
            "test_accuracy_std": stdev(found) if len(found) > 1 else None,
        },
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long_run", description=__doc__)
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="over which kills come")
    parser.add_argument("--folder", type=Path, default=Path("runs/long"))
    parser.add_argument("--out", type=Path, default=Path("results/fashion-best.json"))
    parser.add_argument("words", nargs="*", help="after --: more words for `mixer train`")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the run is stopped as well
    given.folder.mkdir(parents=True, exist_ok=True)
    run, path = given.folder / f"seed-{given.seed}", given.folder / f"seed-{given.seed}.json"
    story = story_of(path, given.seed, given.kills, given.minutes)
    train(run, story, path, [given.recipe, "--seed", str(given.seed), *given.words])
    row = row_of(run, story)
    print(json.dumps(row))
    with RunFolder.open(run) as opened:
        recipe = to_dict(opened.recipe())
    write(given.out, row, recipe)


if __name__ == "__main__":
    main()
