"""How much others compute on this machine while something is measured."""

import os
from pathlib import Path

STAT = Path("/proc/stat")
FIELDS = 8
"""Of all processors: user, nice, system, idle, iowait, irq, softirq, steal. What comes behind them
is in the first two already."""
IDLE = 3, 4


class OtherPrograms:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._start = _ticks()

    def share(self) -> float:
        """Of all processors' time since then, what other programs took, and other machines that
        share the processors with this virtual one. 0 where the system does not say, as where it is
        not Linux."""
        start, now = self._start, _ticks()
        if start is None or now is None:
            return 0.0
        taken, passed, ours = (after - before for before, after in zip(start, now, strict=True))
        return max(0.0, taken - ours) / max(passed, 1.0)


def _ticks() -> tuple[float, float, float] | None:
    """Ticks that anybody took, that passed on all processors, and that this program took."""
    try:
        line = STAT.read_text(encoding="ascii").partition("\n")[0]
        counts = [int(count) for count in line.split()[1 : 1 + FIELDS]]
    except (OSError, ValueError):
        return None
    if len(counts) < FIELDS:
        return None
    ours = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")  # and the programs that it started
    return sum(counts) - sum(counts[i] for i in IDLE), sum(counts), ours
