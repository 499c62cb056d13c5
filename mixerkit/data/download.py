"""Fetching files over the network: from a plain mirror, or out of a Debian package.

Each fetch is announced on stderr, gives up within seconds when nobody answers, and yields a
temporary folder that is gone afterwards.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixerkit.download import Expected, fetch
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
            fetch(
                mirror + name,
                folder / name,
                Expected(most=MAX_FILE_BYTES),
                patience=ANSWER_SECONDS,
                tries=1,
            )
        yield folder


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
