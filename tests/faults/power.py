"""Power lost at any moment of a run's life on a disk that forgets what was not synced (F3)."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.opening import is_run
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.verification import verify_run
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from tests.checkpoint.conftest import TINY
from tests.faults.fault import Fault, Trial
from tests.faults.runs import TINY_RUN, row_of, save, step_of, validation_of
from tests.faults.volatile import Disk, Event, Mark, Recorder

RUN = Path("runs") / "mine"
CHOICES = {"threads": 1, "compile": False}
KEEP = 2


@dataclass(frozen=True)
class Record:
    """What happened to the disk, and which nodes of it are folders."""

    events: list[Event]
    folders: set[int]


def record(folder: Path) -> Record:
    """A run from its making to its end, stopped once on the way, under a recorder."""
    (folder / "disk").mkdir()
    recorder = Recorder(folder / "disk")
    path = recorder.root / RUN
    with recorder.watching():
        with RunFolder.create(path, TINY_RUN) as run:
            recorder.mark("made")
            run.save_choices(CHOICES)
            recorder.mark("chosen")
            train(run, recorder, range(1, 8))
            run.log(row_of(8))
        with (path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 8, "sp')  # torn by a kill
        (path / "checkpoints" / f"{UNFINISHED}step-00000008-0").mkdir()
        with RunFolder.open(path, writing=True) as run:
            found = run.newest_checkpoint()
            assert step_of(found) == 7 and found
            run.cut_metrics(found[1])
            train(run, recorder, range(8, 12))
            for number in (1, 2):
                run.save_model(model(number), PREPROCESS, {"number": number})
                recorder.mark(("model", number))
    return Record(recorder.events, recorder.folders)


def train(run: RunFolder, recorder: Recorder, steps: range) -> None:
    """Rows of every step, an unreadable image and a checkpoint of each."""
    for step in steps:
        run.log_quarantine({"split": "train", "index": step, "file": "a", "reason": "x"})
        save(run, step, KEEP)
        recorder.mark(("saved", step))


PREPROCESS = Preprocess(image_size=8, channels=1, class_names=("a", "b", "c"))


def model(number: int) -> MlpMixer:
    """A model whose weights follow from a number."""
    made = MlpMixer(TINY)
    torch.nn.init.constant_(made.head.weight, number)
    return made


# -- a trial ------------------------------------------------------------------------------


def lose_power(trial: Trial) -> None:
    """Power goes between any two changes of the disk, then the run is opened and goes on."""
    events: list[Event] = trial.shared.events
    happened = events[: trial.random.randint(0, len(events))]
    disk = trial.folder / "disk"
    Disk(happened, trial.shared.folders).after_power_loss(disk, trial.random)
    done = [event.what for event in happened if isinstance(event, Mark)]
    if "made" not in done and not is_run(disk / RUN):
        RunFolder.create(disk / RUN, TINY_RUN).close()  # with nothing cleared away by hand
    with contextlib.redirect_stderr(io.StringIO()) as said:
        check_run(disk / RUN, done)
    assert "Trying the checkpoint before" not in said.getvalue(), said.getvalue()
    assert "metrics.jsonl lost rows: " not in said.getvalue(), said.getvalue()


def check_run(path: Path, done: list[Any]) -> None:
    """What had returned before the loss of power is there, and nothing is half there."""
    saved = [what[1] for what in done if what[0] == "saved"]
    with RunFolder.open(path, writing=True) as run:
        check_sound(path)
        assert run.choices() in ([CHOICES] if "chosen" in done else [{}, CHOICES])
        check_best(run, saved)
        step = check_newest(run, max(saved, default=0))
        run.timings()
        listed = [row["index"] for row in run.quarantine()]
        assert [s for s in dict.fromkeys(listed) if s <= step] == [*range(1, step + 1)]
        save(run, step + 1, KEEP)
        assert step_of(run.newest_checkpoint()) == step + 1
        assert [row["step"] for row in run.metrics()] == [*range(1, step + 2)]
    check_sound(path)
    check_model(path, [what[1] for what in done if what[0] == "model"])


def check_sound(path: Path) -> None:
    """No half of anything lies under a name that is read."""
    problems = [part.problem for part in verify_run(path).parts if part.problem]
    assert not problems, problems


def check_newest(run: RunFolder, saved: int) -> int:
    """The newest checkpoint is the last that was saved, or one after it; its rows are there."""
    found = run.newest_checkpoint()
    assert found or not saved, f"the checkpoint of step {saved} is lost"
    step = step_of(found) if found else 0
    assert step >= saved, f"step {saved} was saved, step {step} came back"
    run.cut_metrics(found[1] if found else None)
    assert run.metrics() == [row_of(s) for s in range(1, step + 1)]
    return step


def check_best(run: RunFolder, saved: list[int]) -> None:
    """The best of those saved is there, or one that was saved after it and is no worse."""
    measured = [accuracy for s in saved if (accuracy := validation_of(s)) is not None]
    kept = [validation_of(step) or 0.0 for step in run.checkpoints.steps()]
    assert not measured or max(kept) >= max(measured)


def check_model(path: Path, numbers: list[int]) -> None:
    """The model is the last that was saved, or a newer one, whole."""
    if not numbers and not (path / "model").exists():
        return
    loaded = load(path)
    number = loaded.about["number"]
    assert number >= max(numbers, default=0)
    assert bool((loaded.head.weight == number).all())


FAULTS = (
    Fault(
        "F3",
        "power lost at any moment of a run: what was not synced is missing, cut or zeros",
        "the newest checkpoint that was saved, or a newer one, is used with its rows; the best is "
        "kept; nothing is half there",
        trials=1_000,
        short=40,
        run=lose_power,
        prepare=record,
        counts="states",
    ),
)
