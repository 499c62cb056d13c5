"""The one schema and writer of `results/`: every figure that README and docs may quote.

A file has exactly the keys of `KEYS`: what was measured, the command that does it again, when,
where and with which versions, the settings, and one dict per measured row.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from mixerkit.errors import UserError

KEYS = ("name", "command", "commit", "date", "hardware", "versions", "settings", "rows")

ALWAYS_LISTED = ("mixerkit", "torch", "numpy")
LISTED_WHEN_INSTALLED = (
    *("pillow", "safetensors", "timm", "matplotlib", "scipy"),
    *("onnx", "onnxruntime", "openvino"),
)

# Flags of /proc/cpuinfo that decide how fast a matrix product can be, as people call them.
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}

_begun: ContextVar[tuple[str, str] | None] = ContextVar("begun", default=None)
"""The commit and the date of what is being measured."""


@contextmanager
def measuring() -> Iterator[None]:
    """Files written inside carry the commit and the date of its beginning: by its end other code
    may be in the place of what was measured."""
    token = _begun.set(_now())
    try:
        yield
    finally:
        _begun.reset(token)


def _now() -> tuple[str, str]:
    return describe_commit(), datetime.now(UTC).isoformat(timespec="seconds")


def write_results(
    path: Path | str,
    *,
    name: str,
    command: str,
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
) -> None:
    """Write one results file, whole or not at all; values must be JSON and finite. Its commit and
    date are those of now, or of when `measuring` began."""
    commit, date = _begun.get() or _now()
    content = {
        "name": name,
        "command": command,
        "commit": commit,
        "date": date,
        "hardware": describe_machine(),
        "versions": describe_versions(),
        "settings": settings,
        "rows": rows,
    }
    _check(content, path)
    _replace(Path(path), json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: Path | str) -> dict[str, Any]:
    """The content of a results file, after checking that it has the schema's keys exactly."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"No results file {path}: run the command that writes it.") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    _check(content, path)
    return dict(content)


def _check(content: Any, path: Path | str) -> None:
    found = list(content) if isinstance(content, dict) else [type(content).__name__]
    if sorted(found) != sorted(KEYS):
        raise UserError(
            f"A results file has the keys {', '.join(KEYS)}; {path} has {', '.join(found)}."
        )
    rows = content["rows"]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"rows must be a list of at least one dict; look at {path}.")


def _replace(path: Path, text: str) -> None:
    """Write beside `path` and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def describe_commit() -> str:
    """The commit that this package's files are at, with "+changes" when some are edited; empty
    for an installed copy."""
    package = Path(__file__).parent
    if not _output("git", "-C", str(package), "ls-files", "results.py"):
        return ""
    commit = _output("git", "-C", str(package), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(package), "status", "--porcelain", "--", ".")
    return commit + ("+changes" if changed else "")


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, instruction sets and GPU."""
    cpuinfo = _cpuinfo()
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    sets = [name for flag, name in INSTRUCTION_SETS.items() if flag in flags]
    return {
        "cpu": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_gib": round(_memory() / 2**30, 1),
        "instruction_set": " ".join(sets) or platform.machine(),
        "gpu": _gpu(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure may depend on."""
    versions = {"python": platform.python_version()}
    for name in (*ALWAYS_LISTED, *LISTED_WHEN_INSTALLED):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in ALWAYS_LISTED:
                versions[name] = "not installed"
    return versions


def usable_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of the machine; 0 where Python cannot say, as on Windows."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


@cache
def _gpu() -> str:
    """Names of the NVIDIA GPUs, or an empty text: asked of the driver, so torch stays out, and
    once, for that may take seconds."""
    return ", ".join(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").split("\n"))


def _output(*command: str) -> str:
    """What a program prints, or an empty text when it is absent or fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
