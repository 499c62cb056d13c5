"""`mixer doctor`: what mixerkit found on this machine. Reports trouble, never fails on it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from mixerkit.cli.arguments import Flag, parse
from mixerkit.cli.program import command
from mixerkit.cli.text import pairs
from mixerkit.compiler import cxx_compiler
from mixerkit.errors import EXIT_DONE, UserError

EXAMPLES = """\
  mixer doctor
  mixer doctor --json
"""


@dataclass(frozen=True)
class Doctor:
    """Show versions, processor, threads, memory, devices, and where the demo's photographs are.
    Nothing is downloaded or changed."""

    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer doctor` with `words`."""
    given = parse(Doctor, words, command="doctor", examples=EXAMPLES)
    found = {name: _whatever(look) for name, look in CHECKS.items()}
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(pairs([(_label(name), _as_text(value)) for name, value in found.items()]))
    return EXIT_DONE


def _whatever(look: Callable[[], Any]) -> Any:
    """What a check finds, or why it could not look: a broken part must not hide the others."""
    try:
        return look()
    except Exception as error:
        return f"not found: {error or type(error).__name__}"


def _label(name: str) -> str:
    return name.replace("_gib", " in GiB").replace("_", " ")


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value).replace("\n", "\n" + " " * 4)


def _versions() -> dict[str, str]:
    from mixerkit.results import describe_versions

    return describe_versions()


@cache
def _machine() -> dict[str, Any]:
    from mixerkit.results import describe_machine

    return describe_machine()


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _torch_uses() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability()


def _devices() -> str:
    import torch

    devices = ["cpu"]
    for i in range(torch.cuda.device_count()):
        devices.append(f"cuda:{i} ({torch.cuda.get_device_name(i)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return ", ".join(devices)


def _compiler() -> str:
    try:
        found = cxx_compiler()
    except UserError as error:
        return str(error)
    return " ".join(found) or (
        "none: torch.compile and the fastest code for small models need g++ or clang++, everything "
        "else works without"
    )


def _pictures() -> str:
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw

    return "matplotlib is there: runs get a report" if can_draw() else f"no report: {HOW_TO_DRAW}"


def _fashion_mnist() -> str:
    """Where it is without asking the network; the files' checksums are compared on the way."""
    from mixerkit.data.sources import open_source

    with _offline():
        try:
            return open_source("fashion-mnist").origin
        except UserError as error:
            lines = str(error).splitlines()
    looked = [line for line in lines if line.startswith("  - ") and "MIXERKIT_OFFLINE" not in line]
    if not looked:  # it met files that are not whole, and says so in one line
        return "\n".join(lines)
    download = f"`{command('demo')}` downloads it once (30 MB)"
    return "\n".join([f"not here; {download}. Looked:", *looked])


@contextmanager
def _offline() -> Iterator[None]:
    """The one switch that data sources know for it is this variable."""
    before = os.environ.get("MIXERKIT_OFFLINE")
    os.environ["MIXERKIT_OFFLINE"] = "1"
    try:
        yield
    finally:
        del os.environ["MIXERKIT_OFFLINE"]
        if before is not None:
            os.environ["MIXERKIT_OFFLINE"] = before


CHECKS: dict[str, Callable[[], Any]] = {
    "python": lambda: f"{sys.version.split()[0]} ({sys.executable})",
    "versions": _versions,
    "processor": lambda: _machine()["cpu"],
    "cores": lambda: _machine()["cores"],
    "threads": _threads,
    "memory_gib": lambda: _machine()["memory_gib"],
    "instruction_sets": lambda: _machine()["instruction_set"],
    "gpu": lambda: _machine()["gpu"] or "none",
    "torch_uses": _torch_uses,
    "devices": _devices,
    "compiler": _compiler,
    "pictures": _pictures,
    "fashion_mnist": _fashion_mnist,
}
