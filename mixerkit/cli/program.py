"""How the user can call us again from where they stand: commands that work as printed."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: str | Path) -> str:
    """A command line for the user's shell: `command("info", run)` → "mixer info runs/a"."""
    return f"{program()} {shlex.join(str(word) for word in words)}"


def program() -> str:
    """`mixer` if that is ours on the PATH, else the way to this Python's `mixer`."""
    ours = Path(sys.executable).with_name("mixer")
    on_path = shutil.which("mixer")
    if on_path and Path(on_path).resolve() == ours.resolve():
        return "mixer"
    if ours.is_file():
        return shlex.quote(from_here(ours))
    return f"{shlex.quote(from_here(Path(sys.executable)))} -m mixerkit"


def from_here(path: Path) -> str:
    """`path` seen from the working folder, or whole where that is shorter."""
    whole = os.path.abspath(path)  # noqa: PTH100 (resolve() would follow a venv's links)
    seen = os.path.relpath(whole)
    return seen if len(seen) <= len(whole) else whole
