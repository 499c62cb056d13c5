"""Our own code for small models, `native.cpp`, compiled for the processor that it runs on.

Any g++ or clang++ will do; $CXX names another one. The library is kept in the user's cache, under a
name that says of what it was made: the source, the compiler, and what the processor can.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from mixerkit.download import cache_folder
from mixerkit.errors import UserError

SOURCE = Path(__file__).with_name("native.cpp")
COMPILERS = ("g++", "clang++")
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-w")
SECONDS = 120


def compiler() -> str | None:
    """The path of $CXX, or of a compiler that is known; None where there is none."""
    names = (os.environ.get("CXX"), *COMPILERS)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def native_library(watch: Callable[[str], None] = lambda line: None) -> ctypes.CDLL:
    """The compiled code, opened. `watch` is told when it has to be compiled. `UserError`: there is
    no compiler, or it fails, or what it wrote cannot be opened."""
    found = compiler()
    if not found:
        raise UserError(
            f"Our own code for this processor needs a C++ compiler, and neither "
            f"{' nor '.join(COMPILERS)} is installed: install one, or name it in $CXX."
        )
    name = _made_of(found)
    if name not in _opened:
        try:
            _opened[name] = ctypes.CDLL(str(_kept(found, name, watch)))
        except OSError as error:
            raise UserError(f"Our own code for this processor cannot be used: {error}") from error
    return _opened[name]


_opened: dict[str, ctypes.CDLL] = {}


def _kept(command: str, name: str, watch: Callable[[str], None]) -> Path:
    library = cache_folder() / "native" / f"{name}.so"
    if not library.exists():
        watch("compiling our own code for this processor, once …")
        library.parent.mkdir(parents=True, exist_ok=True)
        compile_native(command, library)
    return library


def compile_native(command: str, library: Path, target: str = "native") -> None:
    """Write `library`, whole or not at all, for the processor `target`. `UserError`: the compiler
    fails."""
    chosen = f"-march={target}" if platform.machine() in ("x86_64", "AMD64") else f"-mcpu={target}"
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        written = Path(folder) / library.name
        line = [command, *FLAGS, chosen, str(SOURCE), "-o", str(written)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{command} does not compile our own code: {error}") from error
        if done.returncode:
            said = next(iter(done.stderr.strip().splitlines()), f"it ended with {done.returncode}")
            raise UserError(f"{command} does not compile our own code: {said}")
        written.replace(library)


def _made_of(command: str) -> str:
    """A name for what this compiler makes of the source on this processor."""
    about = Path(command).resolve()
    told = about.stat()
    parts = (SOURCE.read_text(encoding="utf-8"), FLAGS, about, told.st_size, told.st_mtime_ns)
    text = repr((*parts, platform.machine(), _instructions()))
    return hashlib.sha256(text.encode()).hexdigest()


def _instructions() -> str:
    """What the processor says it can, on Linux; a home folder may be seen by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
