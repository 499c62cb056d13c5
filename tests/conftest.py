"""What holds for every test: no network, one thread, fixed seeds, folders of its own."""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from mixerkit.inference import plan
from mixerkit.other_programs import OtherPrograms

# Shells let what they start in the background ignore Ctrl-C, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests use it by themselves
NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once


class NetworkBlockedError(OSError):
    """A test tried to leave this machine; to the code under test it looks like being offline."""


def block_network(event: str, arguments: tuple) -> None:
    """Audit hook: refuses every address but loopback and Unix sockets."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in ("localhost", "::1") and not host.startswith("127."):
        raise NetworkBlockedError(f"tests are offline, but something asked for {host!r}")


def pytest_configure() -> None:
    sys.addaudithook(block_network)
    for name in ("http_proxy", "https_proxy"):  # holds for the commands that tests start
        os.environ[name] = os.environ[name.upper()] = NOWHERE
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    torch.set_num_threads(1)
    settings.register_profile("mixerkit", deadline=None, derandomize=True, database=None)
    settings.load_profile("mixerkit")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody else computed here: how to compute is measured once."""
    monkeypatch.setattr(OtherPrograms, "share", lambda self: 0.0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """How to compute is measured by few turns: that the best is found, tests of plans ask."""
    for name, value in {"ROUNDS": 1, "LOOKS": 1, "LEAST_LOOK": 1e-3, "REST": 0, "FINAL": 0}.items():
        monkeypatch.setattr(plan, name, value)


@pytest.fixture
def repository() -> Path:
    """The folder that holds README.md and `mixerkit/`."""
    return Path(__file__).parent.parent


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    """A path for a run folder that does not exist yet."""
    return tmp_path / "run"
