"""What `torchrun` says of this process, in its environment. Nothing heavy is imported."""

import os


def processes() -> int:
    """How many processes were started to train together; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is: 0 writes the run folder, and speaks."""
    return _number("RANK", 0) if processes() > 1 else 0


def processes_here() -> int:
    """How many of them share this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def device_number() -> int:
    """Which of this machine's devices is this process's own."""
    return _number("LOCAL_RANK", 0)


def may_restart() -> bool:
    """Whether the launcher starts all processes again when one of them fails."""
    return _number("TORCHELASTIC_MAX_RESTARTS", 0) > 0


def restarts() -> int:
    """How often the launcher has started all processes again."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
