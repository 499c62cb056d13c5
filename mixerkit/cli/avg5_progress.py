"""How far `mixer evaluate --protocol avg5` is over all tasks and trials, with the time left."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from mixerkit.cli.progress import SECONDS_BETWEEN_LINES, Console, bar
from mixerkit.study.transfer import FINAL
from mixerkit.training.plan import duration_text

if TYPE_CHECKING:
    from mixerkit.study.grid import Configuration
    from mixerkit.study.runner import Work
    from mixerkit.study.transfer_plan import Planned
    from mixerkit.training.progress import Progress


SECONDS_BETWEEN = 20 * SECONDS_BETWEEN_LINES
"""Between two lines where there is no terminal: a protocol may take days."""


class Opening:
    """Says which images are being opened before anything is trained: in place on a terminal, else
    when that takes long. A context, at whose end the line on the terminal goes away."""

    def __init__(self, console: Console) -> None:
        self.console, self.said = console, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.console.draw("")

    def __call__(self, line: str) -> None:
        """One step further."""
        if self.console.live:
            self.console.draw(line)
        elif time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self.console.say(line)


class Overall:
    """Watches the runs of both stages. On a terminal a bar is redrawn; elsewhere a line is said for
    each trial that begins, and when long nothing was."""

    def __init__(self, console: Any, plans: "Sequence[Planned]") -> None:
        self.console, self.plans = console, plans
        self.cost = {plan.task.name: plan.macs / plan.trials for plan in plans}
        self.work: Work | None = None
        self.current: Configuration | None = None
        self.began = self.said = -math.inf
        self.known: list[tuple[float, float]] = []  # multiply-adds of trials, and their seconds

    def follow(self, work: "Work") -> None:
        """Watch the next stage. What rows say of the speed of trials is of training alone."""
        self._note_the_last()
        self.work, self.current = work, None
        if not self.known:
            rows = (row for _, row in work.folder.rows() if "error" not in row)
            self.known = [(self.cost[row["levels"]["task"]], row["seconds"]) for row in rows]

    def say(self, line: str) -> None:
        """One line of a run; of all that it says, only that it stops."""
        if line.startswith("Stopping"):
            self.console.say(line)

    def progress(self, now: "Progress") -> None:
        """Redraw the bar, or say a line."""
        assert self.work and self.work.current
        if self.work.current is not self.current:
            self._note_the_last()
            self.current, self.began, self.said = self.work.current, time.monotonic(), -math.inf
        seconds = self.seconds_left(now)
        left = "" if seconds is None else f", about {duration_text(seconds)} left"
        line = f"{self._place(self.current)}{left}"
        if self.console.live:
            self.console.draw(f"{line}  {bar(now)}")
        elif time.monotonic() - self.said > SECONDS_BETWEEN:
            self.said = time.monotonic()
            self.console.say(line)

    def _note_the_last(self) -> None:
        """How long the trial before took, with all that belongs to one."""
        if self.current is not None:
            self.known.append((self._cost(self.current), time.monotonic() - self.began))

    def _cost(self, one: "Configuration") -> float:
        """Multiply-adds of a trial."""
        return self.cost[one.levels["task"]]

    def _is_last_stage(self) -> bool:
        """In which there is one trial for each task."""
        assert self.work
        return self.work.folder.path.name == FINAL

    def _place(self, one: "Configuration") -> str:
        """Task i of n, trial j of m: of both stages."""
        assert self.work
        names = [plan.task.name for plan in self.plans]
        task = names.index(one.levels["task"])
        listed = self.work.folder.configurations
        total = sum(plan.trials for plan in self.plans)
        before = total - len(listed) if self._is_last_stage() else 0
        return (
            f"{self.plans[task].task.title}: task {task + 1} of {len(names)}, trial "
            f"{before + listed.index(one) + 1} of {total}"
        )

    def seconds_left(self, now: "Progress") -> float | None:
        """Of everything, if nobody else takes part; None where nothing is known of the speed."""
        assert self.work and self.current
        folder = self.work.folder
        waiting = [
            one
            for one in folder.configurations
            if one is not self.current and folder.row_of(one) is None
        ]
        left = sum(map(self._cost, waiting))
        if not self._is_last_stage():
            left += sum(self.cost.values())
        rest = self._cost(self.current) * (1 - now.step / now.total)
        if self.known:
            macs, seconds = (sum(column) for column in zip(*self.known, strict=True))
            return (left + rest) * seconds / macs
        if not (math.isfinite(now.seconds_left) and rest):
            return None
        return now.seconds_left * (left + rest) / rest
