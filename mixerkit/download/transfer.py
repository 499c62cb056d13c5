"""One file on its way: what is asked for, what is kept, what is refused.

The bytes that have arrived wait in the part file, and beside it a note with the server's name for
this version of the file, so that the rest can be asked for later.
"""

import json
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from mixerkit.download.checksums import digest, server_md5
from mixerkit.download.progress import Watch
from mixerkit.errors import UserError

CHUNK = 1 << 20
WORTH_TRYING_AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand: smallest and largest size in bytes, and its SHA-256
    in hexadecimal; empty where it is not known."""

    least: int = 0
    most: int = 1 << 36
    sha256: str = ""


NOTHING_KNOWN = Expected()


class Interrupted(Exception):
    """The transfer broke off; trying again may help."""


class Transfer:
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
            raise Interrupted(str(reason) or type(error).__name__) from error
        except UserError:
            raise
        except ValueError as error:
            raise UserError(
                f"{self.address} is no address that can be fetched: {error}."
            ) from error
        except HTTPException as error:  # its text alone is whatever the server sent
            raise Interrupted(f"no proper answer ({error!r})") from error

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
            raise Interrupted(f"the connection broke off after {got:,} of {total:,} bytes")

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
            raise Interrupted(f"asked to go on at byte {got}, the server sent '{ranged}'")
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
            raise Interrupted("the server's file has changed") from error
        if error.code in WORTH_TRYING_AGAIN:
            raise Interrupted(f"the server answers {error.code} {error.reason}") from error
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
        sums = {"MD5": server_md5(headers), "SHA-256": self.expected.sha256}
        return "; ".join(
            f"expected {name} {wanted}, found {found}"
            for name, wanted in sums.items()
            if wanted and (found := digest(self.part, name)) != wanted
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
