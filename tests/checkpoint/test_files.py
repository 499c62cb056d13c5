"""Atomic writes under kills and umasks, manifests under bit flips."""

import errno
import hashlib
import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from mixerkit.checkpoint import files
from mixerkit.checkpoint.documents import read_json
from mixerkit.checkpoint.files import (
    UNFINISHED,
    atomic_folder,
    discard,
    remove_unfinished,
    write_atomic,
)
from mixerkit.checkpoint.manifest import manifest_text, verify_folder
from mixerkit.errors import UserError
from tests.checkpoint.conftest import Killed, flip_bit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed folder with two files, one of them further down."""
    with atomic_folder(tmp_path / "sealed", {"kind": "test"}) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "a.bin").write_bytes(bytes(range(40)))
        (temporary / "inner" / "b.txt").write_text("hello")
    return tmp_path / "sealed"


def test_a_write_replaces_the_whole_file(tmp_path: Path):
    path = tmp_path / "x"
    write_atomic(path, b"a longer first content")
    write_atomic(path, b"short")
    assert path.read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("point", range(1, 6))
def test_a_kill_while_writing_leaves_the_old_file_or_the_new(tmp_path, kill_at, point, monkeypatch):
    path = tmp_path / "x"
    write_atomic(path, b"old")
    kill_at(point)
    try:
        write_atomic(path, b"new")
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    assert path.read_bytes() in ((b"new",) if finished else (b"old", b"new"))
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_error_while_writing_leaves_no_trace(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    write_atomic(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomic(tmp_path / "x", b"new")
    with pytest.raises(OSError), atomic_folder(tmp_path / "y") as temporary:
        (temporary / "a").write_text("a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x", b"old")]


@pytest.mark.parametrize("links", [True, False])
def test_new_files_overwrite_nothing_that_came_meanwhile(tmp_path, monkeypatch, links):
    """Also where a file system has no hard links; and then none of them is left."""
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    paths = [tmp_path / "a.bin", tmp_path / "a.xml"]
    with files.new_files(paths) as folder:
        for path in paths:
            (folder / path.name).write_text("first")
        assert not any(path.exists() for path in paths)
    assert sorted(tmp_path.iterdir()) == paths
    paths[0].unlink()
    for other in ("a file", "a link to nothing"):
        with (
            pytest.raises(UserError, match=r"a\.xml already exists and is never overwritten"),
            files.new_files(paths) as folder,
        ):
            for path in paths:
                (folder / path.name).write_text("second")
            paths[1].unlink()
            paths[1].symlink_to("nothing") if "link" in other else paths[1].write_text(other)
        assert list(tmp_path.iterdir()) == [paths[1]]
        assert paths[1].is_symlink() or paths[1].read_text() == other


def no_links(self: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_everything_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """fsync order of reliability.md: files, manifest, folders, rename, parent."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def logged_fsync(handle):
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def logged_rename(source, target):
        events.append(f"rename to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged_rename)
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "one").write_text("1")
        (temporary / "two").write_text("2")
    assert events == [
        *("one", "two", "manifest.json", temporary.name),
        *("rename to out", tmp_path.name),
    ]


def test_a_folder_is_never_overwritten_unless_told(folder: Path):
    before = (folder / "a.bin").read_bytes()
    with pytest.raises(UserError, match="already exists"), atomic_folder(folder):
        pass
    assert (folder / "a.bin").read_bytes() == before
    with atomic_folder(folder, replace=True) as temporary:
        (temporary / "c").write_text("c")
    assert sorted(p.name for p in folder.iterdir()) == ["c", "manifest.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["sealed"]


@pytest.mark.parametrize("swaps", [True, False])
def test_a_replaced_folder_is_there_whatever_call_a_kill_falls_on(
    folder, kill_at, monkeypatch, swaps
):
    """Its name bears the old folder or the new, whole: at once where the system swaps names, else
    when the next writer has cleared up."""
    for point in range(1, 30):
        before = sorted(p.name for p in folder.iterdir())
        with monkeypatch.context() as patched:
            if not swaps:
                patched.setattr(files, "_exchange", lambda *_: False)
            kill_at(point)
            try:
                with atomic_folder(folder, {"kind": "test"}, replace=True) as temporary:
                    (temporary / str(point)).write_text("new")
                finished = True
            except Killed:
                finished = False
        monkeypatch.undo()
        if not swaps:
            remove_unfinished(folder.parent)
        assert verify_folder(folder) == {"kind": "test"}
        after = sorted(p.name for p in folder.iterdir())
        assert after == sorted([str(point), "manifest.json"]) or (not finished and after == before)
        if finished:
            break
    assert 5 < point < 29
    remove_unfinished(folder.parent)
    assert [p.name for p in folder.parent.iterdir()] == ["sealed"]


def test_a_folder_moved_away_comes_back_only_where_its_name_is_free(folder, monkeypatch, tmp_path):
    """The name is free after a kill between the two renames, taken after a later one."""
    away = tmp_path / f"{UNFINISHED}sealed-former"
    folder.rename(away)
    remove_unfinished(tmp_path)
    assert verify_folder(folder) and not away.exists()
    away.mkdir()
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["sealed"]
    away.mkdir()
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    with atomic_folder(folder, {"kind": "new"}, replace=True):
        pass
    assert verify_folder(folder) == {"kind": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["sealed"]


@pytest.mark.parametrize("name", ["_write_manifest", "sync", "_take_place"])
def test_errors_of_the_system_name_what_was_to_be_written(tmp_path, monkeypatch, name):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, name, full)
    if name == "sync":
        with pytest.raises(OSError) as raised:
            write_atomic(tmp_path / "file", b"new")
        assert raised.value.filename == str(tmp_path / "file")
    with pytest.raises(OSError) as raised, atomic_folder(tmp_path / "folder"):
        pass
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_replaced_and_cannot_be_removed_is_a_warning(folder, monkeypatch, capsys):
    def refuse(path, **_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        with atomic_folder(folder, {"kind": "new"}, replace=True):
            pass
        assert "could not be removed: [Errno 5]" in capsys.readouterr().err
        discard(folder)
        assert "sealed could not be removed: [Errno 5]" in capsys.readouterr().err
    assert not folder.exists()
    remove_unfinished(folder.parent)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_folder_that_knows_no_sync_is_no_failure(tmp_path, monkeypatch, number):
    def refuse_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse_folders)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            write_atomic(tmp_path / "x", b"new")
    else:
        write_atomic(tmp_path / "x", b"new")
        with atomic_folder(tmp_path / "y"):
            pass
        assert verify_folder(tmp_path / "y") == {}
    monkeypatch.setattr(os, "fsync", lambda _: refuse_folders(os.open(tmp_path, os.O_RDONLY)))
    with pytest.raises(OSError):
        write_atomic(tmp_path / "file", b"")  # a file must be synced wherever it is


def test_where_there_is_a_full_sync_it_is_used(tmp_path, monkeypatch):
    """macOS: fcntl's F_FULLFSYNC, and fsync where the file system has no such thing."""
    calls, supported = [], True

    def control(handle, command):
        calls.append(command)
        if not supported:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    write_atomic(tmp_path / "x", b"")
    assert calls == [51, 51]
    calls, supported = [], False
    write_atomic(tmp_path / "x", b"")
    assert calls == [51, "fsync"] * 2


def test_where_names_cannot_be_swapped_the_old_folder_comes_back_on_an_error(folder, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename = os.rename

    def refuse_the_new(source, target):
        if Path(target) == folder and (Path(source) / "c").exists():
            raise OSError(5, "Input/output error")
        rename(source, target)

    def replace(content: str) -> None:
        with atomic_folder(folder, {"kind": content}, replace=True) as temporary:
            (temporary / "c").write_text(content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse_the_new)
        with pytest.raises(OSError, match="Input/output"):
            replace("new")
    assert verify_folder(folder) == {"kind": "test"}
    replace("new")
    assert verify_folder(folder) == {"kind": "new"}
    assert [p.name for p in folder.parent.iterdir()] == ["sealed"]


def test_a_link_to_a_folder_is_discarded_without_what_it_points_to(folder: Path, tmp_path: Path):
    for name in ("link", f"{UNFINISHED}link"):
        (tmp_path / name).symlink_to(folder)
    discard(tmp_path / "link")
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["sealed"] and verify_folder(folder)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, umask: int):
    previous = os.umask(umask)
    try:
        write_atomic(tmp_path / "x", b"")
        with atomic_folder(tmp_path / "y") as temporary:
            os.close(os.open(temporary / "private", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(previous)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    plain = 0o666 & ~umask
    assert modes == {
        **{"x": plain, "private": plain, "manifest.json": plain},
        "y": 0o777 & ~umask,
    }


def test_the_manifest_is_plain_sha256_and_sizes(folder: Path):
    assert verify_folder(folder) == {"kind": "test"}
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert listed == {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "size": (folder / name).stat().st_size,
        }
        for name in ("a.bin", "inner/b.txt")
    }


def test_any_flipped_bit_of_any_file_is_named(folder: Path):
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        bits = range(8 * path.stat().st_size)
        for bit in random.sample(bits, min(len(bits), 60)):
            flip_bit(path, bit)
            with pytest.raises(UserError, match=path.name):
                verify_folder(folder)
            flip_bit(path, bit)
    verify_folder(folder)


def test_missing_cut_grown_swapped_and_odd_files_are_named(folder: Path):
    path = folder / "a.bin"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"x", bytes(len(whole))):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.bin was changed or damaged"):
            verify_folder(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.bin is missing"):
        verify_folder(folder)
    os.mkfifo(path)  # reading it would wait for ever
    with pytest.raises(UserError, match="not a plain file"):
        verify_folder(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json"):
        verify_folder(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder: Path):
    for name in ("../secret", "inner/../../secret", "/etc/hostname", "a\0b"):
        text = manifest_text({}, {name: {"sha256": "0", "size": 1}})
        (folder / "manifest.json").write_bytes(text)
        with pytest.raises(UserError, match="outside the folder"):
            verify_folder(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[1]",
        b'{"a": NaN}',
        b"9" * 5000,
        b"null",
        b'{"a": 1e999}',
        b'{"a": 1, "a": 1}',
        b'{"a": "\\ud800"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xed\xa0\x80"}',
    ],
)
def test_bad_json_is_a_user_error_naming_the_file(tmp_path: Path, content: bytes):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.json"):
        read_json(tmp_path / "bad.json")


def test_a_manifest_of_brackets_in_brackets_or_words_of_no_text_is_damaged(folder: Path):
    for about in ("[" * 400 + "]" * 400, '"\\ud800"', "1e999"):
        text = f'{{"about": {{"a": {about}}}, "files": {{}}}}'
        (folder / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json"):
            verify_folder(folder)


def test_huge_json_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no space
    with pytest.raises(UserError, match="larger than"):
        read_json(tmp_path / "huge.json")


def test_leftovers_are_recognised_by_their_prefix(tmp_path: Path):
    (tmp_path / f"{UNFINISHED}folder").mkdir()
    (tmp_path / f"{UNFINISHED}folder" / "x").write_text("x")
    (tmp_path / f"{UNFINISHED}file").write_text("x")
    (tmp_path / "mine").write_text("kept")
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
