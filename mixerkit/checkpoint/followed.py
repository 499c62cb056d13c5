"""A run folder as those processes of a run see it that do not write: the first one does."""

from typing import Any

from mixerkit.checkpoint.run import RunFolder


class FollowedRun(RunFolder):
    """Reads the folder of a run in which another process writes, and leaves the writing to it."""

    def forget_stop(self) -> None:
        """Written by the first process, like all that follows."""

    def log(self, row: dict[str, Any]) -> None:
        pass

    def log_timing(self, row: dict[str, Any]) -> None:
        pass

    def log_quarantine(self, row: dict[str, Any]) -> None:
        pass

    def cut_metrics(self, state: dict[str, Any] | None) -> None:
        pass

    def take_away(self, first: int) -> None:
        pass
