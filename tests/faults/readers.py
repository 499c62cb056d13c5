"""Readers beside a writer that saves and prunes, and second writers beside the first (F16)."""

import contextlib
import io
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from mixerkit.checkpoint import lock
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.runs import list_runs, summary
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from tests.faults.fault import Fault, Trial
from tests.faults.runs import TINY_RUN, row_of, save, step_of, validation_of

STEPS = 100
"""Checkpoints of one run; then the writer makes another one."""


class Writer:
    """A process that holds a run and saves one checkpoint whenever it is asked to."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.faults.readers", str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes)
        self.folder, self.saved = folder, 0
        weakref.finalize(self, stop, self.process)

    def run(self) -> Path:
        """The run that it writes in."""
        return run_of(self.folder, self.saved)

    @contextlib.contextmanager
    def saving(self) -> Iterator[Callable[[], bool]]:
        """Inside, it is at work on the next checkpoint, for as long as what is given is true."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        try:
            yield lambda: not select.select([self.process.stdout], [], [], 0)[0]
        finally:
            assert self.process.stdout.readline() == "saved\n"
            self.saved += 1


def run_of(folder: Path, saved: int) -> Path:
    """The run that the next checkpoint goes into."""
    return folder / f"run-{saved // STEPS}"


def stop(process: subprocess.Popen) -> None:
    """It ends when there is nobody to ask it any more."""
    process.stdin.close()
    process.wait()
    process.stdout.close()


def write(folder: Path) -> None:
    """What the writer does: a row, a checkpoint, choices, pruning; one run after another."""
    run: RunFolder | None = None
    for saved, _ in enumerate(sys.stdin):
        if saved % STEPS == 0:
            if run:
                run.close()
            run = RunFolder.create(run_of(folder, saved), TINY_RUN)
        assert run
        step = saved % STEPS + 1
        run.save_choices({"total_steps": STEPS, "text": str(STEPS) * 500})
        save(run, step)
        run.save_evaluation("test", {"step": step})
        print("saved", flush=True)


# -- a trial ------------------------------------------------------------------------------


def start_writer(folder: Path) -> Writer:
    """A writer with its first checkpoint on disk."""
    writer = Writer(folder)
    with writer.saving():
        pass
    return writer


def read_while_it_is_written(trial: Trial) -> None:
    """One kind of reading, again and again until the writer is through with a checkpoint."""
    writer: Writer = trial.shared
    if writer.saved % STEPS == 0:  # a run without a checkpoint is none to read yet
        with writer.saving():
            pass
    path, before = writer.run(), writer.saved % STEPS
    read = trial.random.choice(READINGS)
    with contextlib.redirect_stderr(io.StringIO()) as said, writer.saving() as is_saving:
        last = before
        while True:
            goes_on = is_saving()
            seen = read(path)
            assert last <= seen <= before + 1, f"step {seen} after {last}"
            last = seen
            if not goes_on:
                break
        trial.random.choice((open_too, create_too))(path, writer.process.pid)
    assert last == before + 1, "what is saved is not seen"
    assert said.getvalue() == "", said.getvalue()


def read_rows(path: Path) -> int:
    rows = RunFolder.open(path).metrics()
    assert rows == [row_of(step) for step in range(1, len(rows) + 1)]
    return len(rows)


def read_timings(path: Path) -> int:
    rows = RunFolder.open(path).timings()
    assert [row["step"] for row in rows] == [*range(1, len(rows) + 1)]
    return len(rows)


def read_newest(path: Path) -> int:
    return step_of(RunFolder.open(path).newest_checkpoint())


def read_documents(path: Path) -> int:
    run = RunFolder.open(path)
    choices, evaluation = run.choices(), run.evaluation()
    assert choices["text"] == str(choices["total_steps"]) * 500
    assert evaluation
    return int(evaluation["step"])


def read_summary(path: Path) -> int:
    found = summary(RunFolder.open(path))
    assert (found["state"], found["recipe"]) == ("running", TINY_RUN.name)
    return int(found["step"])


def read_list(path: Path) -> int:
    (row,) = list_runs(path)
    assert (row["state"], row["problem"]) == ("running", None), row
    return int(row["step"])


def read_all(path: Path) -> int:
    """Every checkpoint that is there, and the best among them."""
    found = verify_run(path)
    problems = [part.problem for part in found.parts if part.problem]
    assert not problems, problems
    step = found.resume_step
    assert step
    measured = [accuracy for s in range(1, step) if (accuracy := validation_of(s)) is not None]
    kept = [part.validation for part in found.parts if part.validation is not None]
    assert not measured or max(kept) >= max(measured)
    return step


READINGS = (read_rows, read_timings, read_documents, read_newest, read_newest, read_newest,
            read_rows, read_summary, read_list, read_all)  # fmt: skip
"""Those that take longest, because they read the recipe, are one of three."""


def open_too(path: Path, pid: int) -> None:
    refused(lambda: RunFolder.open(path, writing=True), pid)


def create_too(path: Path, pid: int) -> None:
    refused(lambda: RunFolder.create(path, TINY_RUN), pid)


def refused(take: Callable[[], object], pid: int) -> None:
    """A second writer is told who the first one is."""
    with mock.patch.object(lock, "LOCK_PATIENCE", 0.0):
        try:
            take()
        except UserError as error:
            assert f"process {pid} on host {os.uname().nodename} since " in str(error), error
            return
    raise AssertionError("a second writer was let in")


FAULTS = (
    Fault(
        "F16",
        "a run read while a process saves and prunes in it, and a second writer each time",
        "rows, checkpoints and lists are whole and never older than before; the second writer is "
        "refused and told who the first is",
        trials=10_000,
        short=80,
        run=read_while_it_is_written,
        prepare=start_writer,
        counts="reads",
    ),
)

if __name__ == "__main__":
    write(Path(sys.argv[1]))
