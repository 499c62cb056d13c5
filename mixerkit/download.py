"""Fetching a file over HTTP: whole and checked or not at all, going on where it stopped.

The bytes that have arrived wait beside the file, under its name with `.part`; one process
fetches a file at a time, and another that wants it waits and finds it.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from mixerkit.errors import UserError

PATIENCE = 30.0
"""Seconds without a byte after which a connection is given up."""
TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; twice as many before each further one."""
CHUNK = 1 << 20
WORTH_TRYING_AGAIN = (408, 425, 429, 500, 502, 503, 504)

Watch = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that have arrived, and all of them if that is known."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand: smallest and largest size in bytes, and its SHA-256
    in hexadecimal; empty where it is not known."""

    least: int = 0
    most: int = 1 << 36
    sha256: str = ""


class _Interrupted(Exception):
    """The transfer broke off; trying again may help."""


def is_offline() -> bool:
    """Whether MIXERKIT_OFFLINE forbids the network."""
    return os.environ.get("MIXERKIT_OFFLINE", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where this user's downloads are kept: $XDG_CACHE_HOME/mixerkit or ~/.cache/mixerkit."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixerkit"


def fetch(
    address: str,
    path: Path,
    expected: Expected = Expected(),
    *,
    verify: Callable[[Path], None] | None = None,
    watch: Watch | None = None,
    patience: float = PATIENCE,
    tries: int = TRIES,
) -> None:
    """Download `address` to `path`, unless it is there already.

    The size, `expected.sha256` and the MD5 that a server may send are checked before the file
    gets its name, and `verify` may raise `UserError` about its content. Raises `UserError`; what
    has arrived is kept for the next call, unless it proved to be wrong.
    """
    if path.exists():
        return
    if is_offline():
        raise UserError(
            f"{path} is not there, and MIXERKIT_OFFLINE forbids to fetch it: get {address} "
            f"elsewhere and put it there, or unset MIXERKIT_OFFLINE."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _alone(part) as file:
        if path.exists():  # another process was quicker
            part.unlink(missing_ok=True)
            return
        transfer = _Transfer(address, part, file, expected, watch or Shown(), patience)
        headers = _insist(transfer, tries)
        transfer.check(headers, verify)
        os.fsync(file.fileno())
        part.rename(path)
        transfer.note.unlink(missing_ok=True)
        _sync(path.parent)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The part file, opened to be continued, while no other process has it."""
    while True:
        with part.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # whoever had it may have given it its name, or removed it
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield file
                return


def _insist(transfer: "_Transfer", tries: int) -> Message:
    """Transfer to the end, trying again when the connection breaks."""
    for attempt in range(tries):
        try:
            return transfer.go_on()
        except _Interrupted as error:
            got = transfer.got()
            if attempt + 1 == tries:
                kept = f" {got:,} bytes are kept: run again to go on from there." if got else ""
                raise UserError(
                    f"{transfer.address} could not be fetched: {error}.{kept}"
                ) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("tries must be positive")


class _Transfer:
    """One file on its way."""

    def __init__(
        self,
        address: str,
        part: Path,
        file: BinaryIO,
        expected: Expected,
        watch: Watch,
        patience: float,
    ) -> None:
        self.address, self.part, self.file, self.expected = address, part, file, expected
        self.watch, self.patience = watch, patience
        self.note = part.with_name(f"{part.name}.json")

    def got(self) -> int:
        """Bytes that have arrived."""
        return self.file.seek(0, os.SEEK_END)

    def go_on(self) -> Message:
        """Ask for what is missing and append it; the headers of the answer."""
        got = self.got()
        version = self._version() if got else ""
        if got and not version:
            got = self._start_again()
        ranges = {"Range": f"bytes={got}-", "If-Range": version} if got else {}
        try:
            with open_address(self.address, self.patience, ranges) as answer:
                total = self._total(answer, got)
                if answer.status != 206:
                    got = self._start_again()
                    self._remember(answer.headers)
                self._append(answer, got, total)
                return answer.headers
        except HTTPError as error:
            error.close()
            return self._refused(error, got)
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, socket.gaierror):
                raise UserError(
                    f"{self.address} could not be fetched: no network, or no such server "
                    f"({reason.strerror})."
                ) from error
            raise _Interrupted(str(reason) or type(error).__name__) from error
        except UserError:
            raise
        except ValueError as error:
            raise UserError(
                f"{self.address} is no address that can be fetched: {error}."
            ) from error
        except HTTPException as error:  # its text alone is whatever the server sent
            raise _Interrupted(f"no proper answer ({error!r})") from error

    def _append(self, answer: HTTPResponse, got: int, total: int | None) -> None:
        name = self.part.name.removesuffix(".part")
        self.watch(name, got, total)
        while chunk := answer.read(CHUNK):
            got += len(chunk)
            if got > self.expected.most:
                self._start_again()
                raise UserError(f"{self.address} is larger than {self.expected.most:,} bytes.")
            self._keep(chunk)
            self.watch(name, got, total)
        if total is not None and got < total:  # http.client does not mind
            raise _Interrupted(f"the connection broke off after {got:,} of {total:,} bytes")

    def _keep(self, chunk: bytes) -> None:
        """Write at once, so that a full disk is told from a broken connection."""
        try:
            self.file.write(chunk)
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"Cannot write {self.part}: {error.strerror}. What arrived is kept: make room and "
                f"run again to go on from there."
            ) from error

    def _total(self, answer: HTTPResponse, got: int) -> int | None:
        """The whole file's size by the answer's headers, judged before anything is read."""
        ranged, length = answer.headers.get("Content-Range", ""), answer.headers["Content-Length"]
        whole = ranged.rpartition("/")[2] if answer.status == 206 else length or ""
        if answer.status == 206 and not ranged.startswith(f"bytes {got}-"):
            raise _Interrupted(f"asked to go on at byte {got}, the server sent '{ranged}'")
        if not whole.isdecimal():
            return None
        least, most = self.expected.least, self.expected.most
        if not least <= int(whole) <= most:
            self._start_again()
            wanted = f"{least:,} to {most:,}" if least else f"at most {most:,}"
            raise UserError(
                f"{self.address}: expected {wanted} bytes, the server has {int(whole):,}. "
                f"It is another file, and was not fetched."
            )
        return int(whole)

    def _refused(self, error: HTTPError, got: int) -> Message:
        if error.code == 416 and got:  # nothing is missing, or another file is there now
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if whole == str(got):
                return error.headers
            self._start_again()
            raise _Interrupted("the server's file has changed") from error
        if error.code in WORTH_TRYING_AGAIN:
            raise _Interrupted(f"the server answers {error.code} {error.reason}") from error
        raise UserError(
            f"{self.address}: the server answers {error.code} {error.reason}."
        ) from error

    def _start_again(self) -> int:
        self.file.truncate(0)
        self.note.unlink(missing_ok=True)
        return 0

    def _remember(self, headers: Message) -> None:
        """Keep the server's name for this version of the file, to ask for the rest of it."""
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        if version and not version.startswith("W/"):
            self.note.write_text(json.dumps({"address": self.address, "version": version}))

    def _version(self) -> str:
        try:
            note = json.loads(self.note.read_bytes())
            return str(note["version"]) if note["address"] == self.address else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def check(self, headers: Message, verify: Callable[[Path], None] | None) -> None:
        """Refuse bytes that are not what is expected; nothing of them is kept then."""
        try:
            problem = self._wrong_bytes(headers)
            if not problem and verify:
                verify(self.part)
        except UserError as error:
            problem = str(error)
        if problem:
            self._start_again()
            self.part.unlink(missing_ok=True)
            raise UserError(
                f"{self.address} did not arrive as it should ({problem}). Nothing of it was "
                f"kept: run again to fetch it anew."
            )

    def _wrong_bytes(self, headers: Message) -> str:
        """How size or checksums differ from what is expected and from the server's MD5."""
        if self.got() < self.expected.least:
            return f"expected at least {self.expected.least:,} bytes, found {self.got():,}"
        sums = {"MD5": _server_md5(headers), "SHA-256": self.expected.sha256}
        return "; ".join(
            f"expected {name} {wanted}, found {found}"
            for name, wanted in sums.items()
            if wanted and (found := _digest(self.part, name)) != wanted
        )


def open_address(address: str, patience: float, headers: dict[str, str]) -> HTTPResponse:
    """The opened answer; in a thread, because no time-out covers looking up a host name."""
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"} | headers)
    result: list[HTTPResponse | BaseException] = []

    def ask() -> None:
        try:
            result.append(urllib.request.urlopen(request, timeout=patience))
        except BaseException as error:
            result.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience + 1)
    if not result:
        raise OSError(f"no answer within {patience:.0f} seconds")
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _server_md5(headers: Message) -> str:
    """The MD5 in hexadecimal that Google's storage sends for the whole file, or nothing."""
    for value in headers.get_all("x-goog-hash") or []:
        for one in value.split(","):
            name, _, text = one.strip().partition("=")
            if name == "md5":
                with contextlib.suppress(ValueError):
                    return base64.b64decode(text, validate=True).hex()
    return ""


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name.replace("-", "").lower()).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Shown:
    """Progress for a person on stderr: a line that writes over itself on a terminal, else one
    line at the start and one at the end."""

    def __init__(self) -> None:
        self.started, self.first, self.name, self.last = 0.0, 0, "", 0.0

    def __call__(self, name: str, got: int, total: int | None) -> None:
        now = time.monotonic()
        if name != self.name:
            self.started, self.first, self.name, self.last = now, got, name, 0.0
            if not sys.stderr.isatty():
                whole = f", {total / 2**20:.1f} MiB" if total else ""
                _say(f"fetching {name}{whole}")
        done = total is not None and got >= total
        if sys.stderr.isatty() and (done or now - self.last > 0.1):
            self.last = now
            end = "\n" if done else ""
            print(f"\r\x1b[K{self._line(got, total, now)}", end=end, file=sys.stderr, flush=True)
        elif done and not sys.stderr.isatty():
            _say(self._line(got, total, now))

    def _line(self, got: int, total: int | None, now: float) -> str:
        rate = (got - self.first) / max(now - self.started, 1e-3)
        of = f" of {total / 2**20:.1f}" if total else ""
        left = (total - got) / rate if total and rate else 0
        time_left = f", {int(left) // 60}:{int(left) % 60:02} left" if left >= 1 else ""
        return f"{self.name}: {got / 2**20:.1f}{of} MiB, {rate / 2**20:.1f} MiB/s{time_left}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
