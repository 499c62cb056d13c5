"""A Hugging Face hub on loopback: the few requests with which models are published and fetched.

`root/ORG/NAME` holds a repository's files. As on the real one, reading needs no token, writing
does; README.md must begin with metadata; safetensors go to the large files' store by their
SHA-256, everything else inside the commit, one JSON object a line.
"""

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.loopback import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


@dataclass
class FakeHub:
    """Where it answers, what it holds, and what it was asked to make and to commit."""

    root: Path
    address: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for something that is posted."""
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            good = json.loads(body)["content"].startswith("---\n")
            return (200, {}) if good else (400, {"errors": [{"message": "no metadata"}]})
        if path == "/api/repos/create":
            return self._make(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"objects": [self._invited(one) for one in json.loads(body)["objects"]]}
        if parts[:2] == ["api", "models"] and parts[4] == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [_mode(file) for file in files]}
        if parts[:2] == ["api", "models"] and parts[4] == "commit":
            return self._commit(self.root / parts[2] / parts[3], body)
        return 404, {"error": f"this hub knows no {path}"}

    def _make(self, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        address = f"{self.address}/{wanted['organization']}/{wanted['name']}"
        folder = self.root / wanted["organization"] / wanted["name"]
        if folder.exists():
            return 409, {"error": "exists", "url": address}
        folder.mkdir(parents=True)
        self.made.append(wanted)
        return 200, {"url": address}

    def _invited(self, one: dict[str, Any]) -> dict[str, Any]:
        return one | {"actions": {"upload": {"href": f"{self.address}/large/{one['oid']}"}}}

    def _commit(self, folder: Path, body: bytes) -> tuple[int, dict[str, Any]]:
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                self.messages.append(value["summary"])
            elif step["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif step["key"] == "lfsFile":
                (folder / value["path"]).write_bytes(self.large[value["oid"]])
            else:
                return 400, {"error": f"this hub does no {step['key']}"}
        address = f"{self.address}/{folder.parent.name}/{folder.name}/commit/{COMMIT}"
        return 200, {"commitUrl": address, "commitOid": COMMIT}


def _mode(path: str) -> dict[str, Any]:
    large = path.endswith(".safetensors")
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._file(content=False)

        def do_GET(self) -> None:
            self._file(content=True)

        def do_PUT(self) -> None:
            content = self._body()
            name = self.path.rpartition("/")[2]
            right = hashlib.sha256(content).hexdigest() == name
            if right:
                hub.large[name] = content
            self._say(200 if right else 400, b"")

        def do_POST(self) -> None:
            body = self._body()
            status, content = 401, {"error": "Invalid username or password."}
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                status, content = hub.answer(urllib.parse.urlparse(self.path).path, body)
            self._say(status, json.dumps(content).encode())

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _file(self, content: bool) -> None:
            """ORG/NAME/resolve/REVISION/PATH."""
            parts = urllib.parse.urlparse(self.path).path.strip("/").split("/")
            file = hub.root.joinpath(*parts[:2], *parts[4:])
            if len(parts) < 5 or parts[2] != "resolve" or not file.is_file():
                self._say(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            data = file.read_bytes()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            self._say(200, data if content else b"", headers, len(data))

        def _say(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, size: int = 0
        ) -> None:
            """Answer; `size` is what a body would have that is not sent."""
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) or size))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running(root: Path) -> Iterator[FakeHub]:
    """A hub that serves and takes the files below `root`."""
    hub = FakeHub(root)
    with serving(_handler(hub)) as hub.address:
        yield hub
