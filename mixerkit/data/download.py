"""Fetching files over the network: from a plain mirror, or out of a Debian package.

Each fetch is announced on stderr, gives up within seconds when nobody answers, and yields a
temporary folder that is gone afterwards.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from mixerkit.errors import UserError

ANSWER_SECONDS = 5
MAX_FILE_BYTES = 100 << 20


@contextmanager
def fetch_from_mirror(mirror: str, names: list[str]) -> Iterator[Path]:
    """A folder with the files `names` found directly under the address `mirror`."""
    _say(f"Trying {mirror} …")
    with tempfile.TemporaryDirectory(prefix="mixerkit-") as temporary:
        folder = Path(temporary)
        for name in names:
            try:
                _copy(mirror + name, folder / name)
            except (OSError, ValueError) as error:
                raise UserError(f"{mirror}: {getattr(error, 'reason', error)}") from error
            except HTTPException as error:  # its text alone is whatever the server sent
                raise UserError(f"{mirror}: no proper answer ({error!r})") from error
        yield folder


def _copy(address: str, path: Path) -> None:
    """Download one file, with one line of progress that writes over itself on a terminal."""
    got = 0
    with _open(address) as answer, path.open("wb") as file:
        while chunk := answer.read(1 << 20):
            got += len(chunk)
            if got > MAX_FILE_BYTES:
                raise OSError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB")
            file.write(chunk)
            if sys.stderr.isatty():
                print(f"\r{path.name}: {got / 1e6:.1f} MB", end="", file=sys.stderr, flush=True)
    _say(f"{chr(13) if sys.stderr.isatty() else ''}{path.name}: {got / 1e6:.1f} MB")


def _open(address: str) -> IO[bytes]:
    """The opened answer; in a thread, because no time-out covers looking up a host name."""
    result: list[IO[bytes] | BaseException] = []

    def ask() -> None:
        try:
            result.append(urllib.request.urlopen(address, timeout=ANSWER_SECONDS))
        except BaseException as error:
            result.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS + 1)
    if not result:
        raise OSError(f"no answer within {ANSWER_SECONDS} seconds")
    if isinstance(result[0], HTTPError):
        result[0].close()  # it is the answer too, with an open connection
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@contextmanager
def fetch_from_debian(package: str, names: list[str]) -> Iterator[Path]:
    """The folder of `package` that holds `names`: downloaded with apt, not installed, no root.

    Package lists of its own, in the temporary folder, where the machine's do not know it.
    """
    what = f"apt-get download {package}"
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UserError(f"{what}: this machine has no {' and no '.join(missing)}")
    _say(f"Trying {what} …")
    with tempfile.TemporaryDirectory(prefix="mixerkit-") as temporary:
        folder = Path(temporary)
        own_lists = _own_lists(folder)
        try:
            try:
                _run(["apt-get", *_QUICK, "download", package], folder)
            except UserError:
                _run(["apt-get", *_QUICK, *own_lists, "update"], folder)
                _run(["apt-get", *_QUICK, *own_lists, "download", package], folder)
            _run(["dpkg-deb", "-x", str(_only(folder.glob("*.deb"), package)), "content"], folder)
        except UserError as error:
            raise UserError(f"{what}: {error}") from error
        yield _only((folder / "content").rglob(names[0]), names[0]).parent


_QUICK = tuple(
    argument
    for option in (
        f"Acquire::http::Timeout={ANSWER_SECONDS}",
        f"Acquire::https::Timeout={ANSWER_SECONDS}",
        "Acquire::Retries=0",
        "APT::Sandbox::User=root",  # another user could not write into our temporary folder
    )
    for argument in ("-o", option)
)


def _own_lists(folder: Path) -> list[str]:
    """apt's options for lists and cache inside `folder`."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    return ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]


def _run(command: list[str], folder: Path) -> None:
    """Run to the end or raise `UserError` with the last line that the program wrote."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise UserError(f"{lines[-1]} (exit code {done.returncode})")


def _only(paths: Iterator[Path], what: str) -> Path:
    found = sorted(paths)
    if len(found) != 1:
        raise UserError(f"expected one file {what}, found {len(found)}")
    return found[0]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
