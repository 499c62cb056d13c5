"""The downloader against a loopback server that misbehaves in every way we know.

The property behind all of it: whatever happens, the file is whole and right, or absent.
"""

import base64
import hashlib
import http.server
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mixerkit.checkpoint import zoo as zoo_files
from mixerkit.download import Expected, fetch, fetching, transfer
from mixerkit.errors import UserError
from mixerkit.spec.zoo import PUBLISHED
from tests.loopback import serving

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Server:
    """What the next answers do; `asked` are the ranges of the requests so far."""

    content: bytes = CONTENT
    etag: str = '"one"'
    statuses: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    md5: str = ""
    length: int | None = None
    no_length: bool = False
    pause: float = 0.0
    stall: bool = False
    address: str = ""
    asked: list[str] = field(default_factory=list)


def handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            ranged = self.headers.get("Range", "")
            server.asked.append(ranged)
            status = server.statuses.pop(0) if server.statuses else 200
            if status != 200:
                self.send_error(status)
                return
            whole, start = server.content, 0
            if ranged and self.headers.get("If-Range") == server.etag:
                start = int(ranged.removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(whole)}")
                self.end_headers()
                return
            body = whole[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            if not server.no_length:
                self.send_header("Content-Length", str(server.length or len(body)))
            self.send_header("ETag", server.etag)
            if server.md5:
                self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={server.md5}")
            self.end_headers()
            if server.stall:
                time.sleep(1.5)
                return
            if server.cut_after:
                body = body[: server.cut_after.pop(0)]
            for at in range(0, len(body), 50_000):
                self.wfile.write(body[at : at + 50_000])
                time.sleep(server.pause)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with serving(handler(state)) as address:
        state.address = f"{address}/file.npz"
        yield state


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.01)
    monkeypatch.setattr(transfer, "CHUNK", 10_000)
    monkeypatch.delenv("MIXERKIT_OFFLINE", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.npz"


def left(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def md5_of(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def test_a_file_arrives_once_and_leaves_nothing_beside_it(server, path):
    seen = []
    fetch(server.address, path, watch=lambda *seen_now: seen.append(seen_now))
    assert path.read_bytes() == CONTENT and left(path) == ["file.npz"]
    assert seen[0] == ("file.npz", 0, 300_000) and seen[-1] == ("file.npz", 300_000, 300_000)
    fetch(server.address, path)
    assert len(server.asked) == 1


def test_an_interrupted_transfer_goes_on_where_it_stopped(server, path):
    server.cut_after = [70_000, 90_000]
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT and left(path) == ["file.npz"]
    assert server.asked == ["", "bytes=70000-", "bytes=160000-"]


def test_what_arrived_is_kept_for_the_next_process(server, path):
    server.cut_after = [70_000]
    with pytest.raises(UserError, match=r"70,000 of 300,000 bytes.*70,000 bytes are kept"):
        fetch(server.address, path, tries=1)
    assert not path.exists() and path.with_name("file.npz.part").stat().st_size == 70_000
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT and server.asked[-1] == "bytes=70000-"


def test_a_file_that_changed_in_between_is_fetched_anew(server, path):
    server.cut_after = [70_000]
    with pytest.raises(UserError):
        fetch(server.address, path, tries=1)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_part_that_is_already_whole_is_enough(server, path):
    server.cut_after = [300_000]
    server.length = 300_001
    with pytest.raises(UserError):
        fetch(server.address, path, tries=1)
    server.length = None
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again(server, path):
    server.statuses = [503, 500, 429]
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT and len(server.asked) == 4


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there_is_said_at_once(server, path, status):
    server.statuses = [status] * 9
    with pytest.raises(UserError, match=f"answers {status}"):
        fetch(server.address, path)
    assert len(server.asked) == 1 and not path.exists()


def test_corrupted_content_is_refused_by_the_servers_md5(server, path):
    server.md5 = md5_of(CONTENT)
    server.content = CONTENT[:1000] + b"\0" + CONTENT[1001:]
    with pytest.raises(UserError, match=r"expected MD5 .*Nothing of it was kept"):
        fetch(server.address, path)
    assert left(path) == []
    server.content = CONTENT
    fetch(server.address, path)
    assert path.read_bytes() == CONTENT


def test_corrupted_content_is_refused_by_our_sha256(server, path):
    with pytest.raises(UserError, match="expected SHA-256"):
        fetch(server.address, path, Expected(sha256="0" * 64))
    assert left(path) == []
    fetch(server.address, path, Expected(sha256=hashlib.sha256(CONTENT).hexdigest()))


@pytest.mark.parametrize("known", [Expected(least=300_001), Expected(most=299_999)])
@pytest.mark.parametrize("no_length", [False, True])
def test_another_size_than_published_is_refused(server, path, known, no_length):
    server.no_length = no_length
    with pytest.raises(UserError, match=r"299,999|300,001"):
        fetch(server.address, path, known)
    assert not path.exists()
    assert not any(name.endswith(".part") and (path.parent / name).stat().st_size
                   for name in left(path))  # fmt: skip


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(server, path):
    server.pause = 0.1
    fetch(server.address, path, patience=0.5)
    assert path.read_bytes() == CONTENT
    server.stall = True
    start = time.monotonic()
    with pytest.raises(UserError):
        fetch(server.address, path.with_name("other.npz"), patience=0.3, tries=2)
    assert time.monotonic() - start < 10 and not path.with_name("other.npz").exists()


def test_a_full_disk_is_not_a_broken_connection(server):
    """/dev/full takes no byte; what is written there must not be tried again and again."""
    path = Path("/dev/full")
    with path.open("wb", buffering=0) as file:
        on_its_way = transfer.Transfer(server.address, path, file, Expected(), print, 5.0)
        with pytest.raises(UserError, match="No space left"):
            on_its_way._keep(b"x" * 100)


@pytest.mark.parametrize("address", ["/mnt/mirror/file.npz", "no-scheme", "ftp2://x/y"])
def test_what_is_no_address_is_said(address, path):
    with pytest.raises(UserError, match=r"no address|unknown url"):
        fetch(address, path)


def test_nobody_there(path):
    with pytest.raises(UserError, match="refused"):
        fetch("http://127.0.0.1:9/file.npz", path, tries=2)
    assert not path.exists()


def test_offline_says_where_to_put_the_file(server, path, monkeypatch):
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    with pytest.raises(UserError, match=r"MIXERKIT_OFFLINE.*file\.npz"):
        fetch(server.address, path)
    assert server.asked == [] and not path.parent.exists()


def _fetch_in_process(address: str, path: Path) -> None:
    fetch(address, path, watch=lambda *_: None)


def test_several_processes_fetch_it_once(server, path):
    server.pause = 0.02
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_fetch_in_process, args=(server.address, path)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert path.read_bytes() == CONTENT and left(path) == ["file.npz"] and len(server.asked) == 1


# -- the zoo ----------------------------------------------------------------------------------


@pytest.fixture
def small_zoo(server, tmp_path, monkeypatch) -> str:
    """The loopback server in place of the authors', with one small model under a real name."""
    from dataclasses import replace

    from tests.checkpoint import published

    shape = published.Shape(P=16, C=16, L=2, T=8, D=64, S=196)
    file = published.write(tmp_path / "origin.npz", published.linen(shape))
    server.content = file.read_bytes()
    name = "b16-imagenet1k-google"
    size = round(len(server.content) / 2**20, 2)
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], mebibytes=size))
    monkeypatch.setenv("MIXERKIT_ZOO", server.address.rsplit("/", 1)[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return name


def test_a_zoo_name_is_fetched_loaded_and_kept(server, small_zoo, monkeypatch):
    from mixerkit.checkpoint.load import load

    model = load(f"zoo:{small_zoo}", num_classes=5)
    assert model.config.gelu == "tanh" and model.config.num_classes == 5
    assert model.about["trained_on"].startswith("ImageNet-1k from scratch")
    assert model.preprocess.class_names == ()  # the head is another
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    unchanged = load(f"zoo:{small_zoo}")
    assert unchanged.preprocess.class_names[281] == "tabby" and len(server.asked) == 1
    assert not any("Classes" in note for note in unchanged.notes)


def test_the_zoos_cache_never_holds_a_bad_file(server, small_zoo):
    good = server.content
    cached = zoo_files.cached(PUBLISHED[small_zoo])
    at = len(good) // 2
    server.content = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    with pytest.raises(UserError, match="checksum of"):
        zoo_files.fetch_published(PUBLISHED[small_zoo])
    assert not cached.exists()
    server.content = good[:-20_000]
    with pytest.raises(UserError, match="It is another file"):
        zoo_files.fetch_published(PUBLISHED[small_zoo])
    assert not cached.exists()
    server.content = good
    assert zoo_files.fetch_published(PUBLISHED[small_zoo]) == cached
