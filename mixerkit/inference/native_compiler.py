"""Our own code, `cpp/mixer.cpp` and what it includes, compiled for the processor that it runs on.

The library is kept in the user's cache, under a name that says of what it was made (the source, the
compiler and its options, what the processor can) and what is in it, so that no other and no half of
one is run.
"""

import ctypes
import hashlib
import os
import platform
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mixerkit.checkpoint.files import atomic_file
from mixerkit.compiler import KNOWN, cxx_compiler
from mixerkit.download import cache_folder
from mixerkit.errors import UserError

SOURCE = Path(__file__).parent / "cpp" / "mixer.cpp"
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-pthread", "-shared", "-w")
SECONDS = 120
"""After which a compiler is given up."""
OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NoCompiler(UserError):
    """There is none, or none that can be used here."""


_opened: dict[str, ctypes.CDLL] = {}
_failed: dict[str, str] = {}
"""By name, so that nothing is compiled in vain twice in one process."""


def native_library(watch: Callable[[str], None] = lambda line: None) -> ctypes.CDLL:
    """The compiled code, opened. `watch` is told when it has to be compiled. `UserError`: there is
    no compiler, or it fails, or what it wrote cannot be opened or is not safe to."""
    if sys.platform == "win32":  # g++ there keeps long vectors where they must not be
        raise NoCompiler("Our own code is not for Windows: choose another backend.")
    command = cxx_compiler()
    if not command:
        raise NoCompiler(
            f"Our own code for this processor needs a C++ compiler, and neither "
            f"{' nor '.join(KNOWN)} is installed: install one, or name it in $CXX."
        )
    line = (*command, *FLAGS, target())
    try:
        name = _made_of(line)
        if name in _failed:
            raise UserError(_failed[name])
        if name not in _opened:
            _opened[name] = ctypes.CDLL(str(_kept(line, name, watch)))
    except OSError as error:
        raise UserError(f"Our own code for this processor cannot be used: {error}") from error
    return _opened[name]


def target(processor: str = "native") -> str:
    """The compiler's option for code that this kind of processor runs, by default this one."""
    is_x86 = platform.machine() in ("x86_64", "AMD64", "i686")
    return f"-march={processor}" if is_x86 else f"-mcpu={processor}"


def _kept(line: tuple[str, ...], name: str, watch: Callable[[str], None]) -> Path:
    """The library in the cache, compiled now if it is not there or is not whole."""
    folder = cache_folder() / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(folder)
    for library in folder.glob(f"{name}-*.so"):
        _check_own(library)
        if library.stem.endswith(_checksum(library.read_bytes())):
            return library
        library.unlink()
    watch("compiling our own code for this processor, once …")
    draft = folder / f".{name}-{secrets.token_hex(4)}.so"  # others may compile, too
    try:
        compile_native(line, draft)
    except UserError as error:
        _failed[name] = str(error)
        raise
    draft.chmod(0o600)
    return draft.replace(folder / f"{name}-{_checksum(draft.read_bytes())}.so")


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _check_own(path: Path) -> None:
    """`UserError` where somebody else can say what is run."""
    about = path.stat()
    if about.st_uid != os.geteuid() or about.st_mode & OTHERS:
        raise UserError(
            f"Others may write {path}, and what is in it would be run: remove it, or take the "
            f"permission from them."
        )


def compile_native(line: tuple[str, ...], library: Path) -> None:
    """Write `library`, whole or not at all, by the compiler's command `line`. `UserError`: it
    fails."""
    with atomic_file(library) as draft:
        command = [*line, str(SOURCE), "-o", str(draft)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{line[0]} does not compile our own code: {error}") from error
        if done.returncode or not draft.is_file():
            nothing = f"it ended with {done.returncode}" if done.returncode else "it wrote nothing"
            said = done.stderr.strip().splitlines() or [nothing]
            why = next((one for one in said if "error" in one), said[0]).strip().rstrip(".")
            raise UserError(f"{line[0]} does not compile our own code: {why}.")


def _made_of(line: tuple[str, ...]) -> str:
    """A name for what this command makes of the source on this processor."""
    program = Path(line[0]).resolve()
    told = program.stat()
    compiler = program, told.st_size, told.st_mtime_ns
    sources = sorted([SOURCE, *SOURCE.parent.glob("*.h")])
    texts = [path.read_text(encoding="utf-8") for path in sources]
    parts = (texts, line, compiler, platform.machine(), processor())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def processor() -> str:
    """What it says that it can: a home folder may be seen by several kinds."""
    if sys.platform == "darwin":
        names = ("brand_string", "features", "leaf7_features")
        asked = ["sysctl", "-n", *(f"machdep.cpu.{name}" for name in names)]
        return subprocess.run(asked, capture_output=True, text=True, errors="replace").stdout
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
