"""Fashion-MNIST: the format, the search order, the check of what arrives, the fall-backs."""

import errno
import gzip
import hashlib
import shlex
import shutil
import socketserver
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mixerkit.data import fashion_mnist
from mixerkit.data.idx import read_idx
from mixerkit.data.sources import open_source
from mixerkit.errors import UserError

NAMES = [f"{name}.gz" for name in fashion_mnist.FILES]


@pytest.fixture
def files(samples: Path) -> Path:
    return samples / "fashion-mnist"


@pytest.fixture
def official(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sample pass for the official files."""
    for name in fashion_mnist.FILES:
        content = gzip.decompress((files / f"{name}.gz").read_bytes())
        monkeypatch.setitem(fashion_mnist.FILES, name, hashlib.md5(content).hexdigest())


def test_the_sample_is_read(samples, files):
    splits = open_source("fashion-mnist", str(samples))
    assert splits.origin == f"fashion-mnist: {files}; not the official files: 600 training images"
    assert splits.validation is None and splits.test is not None
    for split, each in ((splits.train, 60), (splits.test, 20)):
        assert split.images.shape == (10 * each, 28, 28, 1) and split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [each] * 10
    assert splits.train.class_names[0] == "T-shirt/top"
    assert splits.train.class_names[9] == "Ankle boot"
    raw = gzip.decompress((files / NAMES[0]).read_bytes())
    assert splits.train.images[7].tobytes() == raw[16 + 7 * 784 : 16 + 8 * 784]


def test_the_folder_itself_and_plain_files_and_the_environment(files, tmp_path, monkeypatch):
    for name in NAMES:
        content = gzip.decompress((files / name).read_bytes())
        (tmp_path / name.removesuffix(".gz")).write_bytes(content)
    assert len(open_source("fashion-mnist", str(tmp_path)).train) == 600
    monkeypatch.setenv("MIXERKIT_DATA", str(files.parent))
    assert str(files) in open_source("fashion-mnist").origin


def test_everything_tried_is_listed(tmp_path):
    with pytest.raises(UserError) as caught:
        open_source("fashion-mnist", str(tmp_path))
    lines = str(caught.value).splitlines()
    wanted = [tmp_path, tmp_path / "system", tmp_path / "cache" / "mixerkit", "MIXERKIT_OFFLINE"]
    for line, words in zip(lines[1:5], wanted, strict=True):
        assert str(words) in line
    assert "train-images-idx3-ubyte.gz" in lines[5] and "data.root" in lines[5]


def test_only_official_files_are_taken_from_the_system_folder(files, tmp_path):
    shutil.copytree(files, tmp_path / "system")
    with pytest.raises(UserError, match="their MD5 is not the official"):
        open_source("fashion-mnist")


@pytest.mark.usefixtures("official")
def test_the_system_folder_comes_before_the_cache(files, tmp_path):
    shutil.copytree(files, tmp_path / "cache" / "mixerkit" / "fashion-mnist")
    assert "cache" in open_source("fashion-mnist").origin
    shutil.copytree(files, tmp_path / "system")
    assert open_source("fashion-mnist").origin == f"fashion-mnist: {tmp_path / 'system'}"


@pytest.mark.usefixtures("official")
def test_a_damaged_cache_is_not_used(files, tmp_path):
    cache = tmp_path / "cache" / "mixerkit" / "fashion-mnist"
    shutil.copytree(files, cache)
    content = bytearray(gzip.decompress((cache / NAMES[0]).read_bytes()))
    content[1000] ^= 1
    (cache / NAMES[0]).write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(UserError, match="damaged"):
        open_source("fashion-mnist")
    (cache / NAMES[0]).unlink()
    with pytest.raises(UserError, match="only some files"):
        open_source("fashion-mnist")


@pytest.mark.usefixtures("official")
def test_the_mirror_is_used_and_what_it_gave_is_kept(files, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MIXERKIT_OFFLINE")
    monkeypatch.setattr(fashion_mnist, "MIRROR", f"{files.as_uri()}/")
    splits = open_source("fashion-mnist")
    cache = tmp_path / "cache" / "mixerkit" / "fashion-mnist"
    assert splits.origin.endswith(f"; kept in {cache}")
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)
    assert "Trying file://" in capsys.readouterr().err
    monkeypatch.setattr(fashion_mnist, "MIRROR", "file:///nowhere/")
    assert open_source("fashion-mnist").origin == f"fashion-mnist: {cache}"


@pytest.mark.usefixtures("official")
def test_a_cache_that_cannot_be_written_is_said(files, tmp_path, monkeypatch):
    monkeypatch.delenv("MIXERKIT_OFFLINE")
    monkeypatch.setattr(fashion_mnist, "MIRROR", f"{files.as_uri()}/")
    (tmp_path / "cache").write_text("a file in the way")
    splits = open_source("fashion-mnist")
    assert len(splits.train) == 600 and "could not be kept in" in splits.origin


@pytest.mark.usefixtures("official")
def test_a_full_disk_leaves_no_half_file_in_the_cache(files, tmp_path, monkeypatch):
    monkeypatch.delenv("MIXERKIT_OFFLINE")
    monkeypatch.setattr(fashion_mnist, "MIRROR", f"{files.as_uri()}/")
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    assert "No space left on device" in open_source("fashion-mnist").origin
    assert list((tmp_path / "cache" / "mixerkit" / "fashion-mnist").iterdir()) == []


class Answer(socketserver.StreamRequestHandler):
    """Sends the server's `answer`, whatever is asked."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(self.server.answer)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[socketserver.TCPServer]:
    """A server on this machine in the place of the official mirror."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(
            fashion_mnist, "MIRROR", f"http://127.0.0.1:{server.server_address[1]}/"
        )
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer, message",
    [
        (b"\x00garbage\r\n\r\n", "BadStatusLine"),
        (b"", "closed connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "train-images"),
        (b"HTTP/1.1 404 Gone away\r\nContent-Length: 0\r\n\r\n", "Gone away"),
    ],
)
def test_what_a_mirror_answers_is_said(mirror, files, tmp_path, monkeypatch, answer, message):
    fake_debian(tmp_path, files, monkeypatch, "True", mirror=fashion_mnist.MIRROR)
    mirror.answer = answer
    with pytest.raises(UserError) as caught:
        open_source("fashion-mnist")
    assert message in str(caught.value).splitlines()[3]


@pytest.mark.parametrize("value, offline", [("0", False), ("", False), ("1", True), ("yes", True)])
def test_offline_0_is_not_set(tmp_path, files, monkeypatch, value, offline):
    fake_debian(tmp_path, files, monkeypatch, "True")
    monkeypatch.setenv("MIXERKIT_OFFLINE", value)
    with pytest.raises(UserError) as caught:
        open_source("fashion-mnist")
    assert ("MIXERKIT_OFFLINE is set" in str(caught.value)) == offline
    assert ("E: no such package" in str(caught.value)) == (not offline)


def fake_debian(
    tmp_path: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
    mirror: str = "file:///nowhere/",
) -> Path:
    """Programs named apt-get and dpkg-deb that note how they are called."""
    log = tmp_path / "log"
    programs = {
        "apt-get": f"""
if {fails}:
    sys.exit("E: no such package")
if "download" in arguments:
    pathlib.Path("sample_1_all.deb").write_text("")""",
        "dpkg-deb": f"""
shutil.copytree({str(files)!r}, pathlib.Path(arguments[2]) / "usr/share/datasets/x")""",
    }
    for name, body in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        script = path.with_suffix(".py")
        script.write_text(
            f"import pathlib, shutil, sys\narguments = sys.argv[1:]\n"
            f"with open({str(log)!r}, 'a') as log:\n    print({name!r}, *arguments, file=log)\n"
            f"{body}\n"
        )
        python = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(script))}"
        path.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("MIXERKIT_OFFLINE")
    monkeypatch.setattr(fashion_mnist, "MIRROR", mirror)
    return log


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize(
    "fails, calls",
    [("False", 2), ("'update' not in arguments and not any('Lists' in a for a in arguments)", 4)],
)
def test_debians_package_with_the_machines_lists_or_its_own(
    files, tmp_path, monkeypatch, fails, calls
):
    log = fake_debian(tmp_path, files, monkeypatch, fails)
    splits = open_source("fashion-mnist")
    assert "Debian's package dataset-fashion-mnist; kept in" in splits.origin
    lines = log.read_text().splitlines()
    assert len(lines) == calls
    own = [line for line in lines if "Dir::State::Lists=" in line]
    assert len(own) == (2 if calls == 4 else 0)
    for line in own:
        assert not Path(line.partition("Dir::State::Lists=")[2].split()[0]).exists()


def test_when_the_network_gives_nothing_each_way_is_listed(files, tmp_path, monkeypatch):
    fake_debian(tmp_path, files, monkeypatch, "True")
    with pytest.raises(UserError) as caught:
        open_source("fashion-mnist")
    assert "file:///nowhere/train-images-idx3-ubyte.gz could not be" in str(caught.value)
    assert "E: no such package" in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="this machine has no apt-get and no dpkg-deb"):
        open_source("fashion-mnist")


def idx(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    )


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
BAD_IDX = {
    "short": (GOOD[:-1], "announces 24 bytes, found 23"),
    "long": (GOOD + b"x", "announces 24 bytes, found more"),
    "labels": (idx(np.zeros(4, np.uint8)), "not an IDX file of bytes in 3 dimensions"),
    "floats": (GOOD[:2] + b"\x0d" + GOOD[3:], "not an IDX file of bytes"),
    "empty": (b"", "found nothing"),
    "huge": (GOOD[:4] + b"\xff" * 12, "not a size that can be read"),
    "zero": (GOOD[:4] + b"\x00" * 12, "not a size that can be read"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_files_are_named(tmp_path, case):
    content, message = BAD_IDX[case]
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(UserError, match=f"images.*{message}"):
        read_idx(tmp_path / "images", 3)


def test_idx_values_and_a_cut_gzip_file(tmp_path):
    (tmp_path / "a").write_bytes(GOOD)
    values, digest = read_idx(tmp_path / "a", 3)
    assert values.tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    assert digest == hashlib.md5(GOOD).hexdigest()
    (tmp_path / "a.gz").write_bytes(gzip.compress(GOOD)[:-9])
    with pytest.raises(UserError, match=r"a\.gz"):
        read_idx(tmp_path / "a.gz", 3)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("train-labels-idx1-ubyte", np.zeros(3, np.uint8), "600 images.*but 3 labels"),
        ("t10k-labels-idx1-ubyte", np.full(200, 10, np.uint8), "labels from 0 to 9, found 10"),
    ],
)
def test_files_that_do_not_belong_together(files, tmp_path, name, values, message):
    shutil.copytree(files, tmp_path / "mixed")
    (tmp_path / "mixed" / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
    with pytest.raises(UserError, match=message):
        open_source("fashion-mnist", str(tmp_path / "mixed"))
