"""The C++ compiler of this machine, if it has one: torch.compile and our own code need it."""

import os
import shlex
import shutil
import subprocess
import sys

from mixerkit.errors import UserError

KNOWN = ("g++", "clang++")


def cxx_compiler() -> tuple[str, ...]:
    """The command of $CXX, which may have options, or a compiler that is known, the program by its
    whole path; nothing where there is none. `UserError`: $CXX names none that is installed."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        path = shutil.which(named[0])
        if not path:
            raise UserError(
                f"$CXX names {named[0]}, which is not installed: leave it empty to take "
                f"{' or '.join(KNOWN)}."
            )
        return (path, *named[1:])
    if sys.platform == "darwin" and not _has_command_line_tools():
        return ()  # its g++ would ask whether to install them
    return next(((path,) for name in KNOWN if (path := shutil.which(name))), ())


def _has_command_line_tools() -> bool:
    try:
        return subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
    except OSError:
        return False
