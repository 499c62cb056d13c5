"""Where images are in tar archives: against the bytes put in, and every kind of damage."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from mixerkit.data.tar import key_and_ending, scan
from mixerkit.errors import UserError


def tar_of(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def contents(shard) -> list[bytes]:
    return [shard[index].content() for index in range(len(shard))]


def texts(found) -> tuple[str, ...]:
    return tuple(one.decode() for one in found)


SAMPLES = {
    "00000.jpg": b"first",
    "00000.cls": b"7",
    "00001.cls": b" 3\n",
    "00001.jpg": b"second " * 200,
    "00002.png": b"",
    "00002.cls": b"11",
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_in_webdatasets_form(tmp_path, form):
    shard = scan(tar_of(tmp_path / "a.tar", SAMPLES, form))
    assert texts(shard.names) == ("00000.jpg", "00001.jpg", "00002.png")
    assert contents(shard) == [b"first", b"second " * 200, b""]
    assert texts(shard.classes) == ("7", "3", "11") and shard.left_out == 0


def test_labels_in_json_and_what_is_no_image(tmp_path):
    files = {
        "x/a.jpg": b"A",
        "x/a.json": json.dumps({"caption": "a cat", "label": 5}).encode(),
        "x/a.txt": b"a cat",
        "x/b.jpeg": b"B",
        "x/b.json": json.dumps({"cls": "tabby"}).encode(),
        "README": b"of no use",
    }
    shard = scan(tar_of(tmp_path / "a.tar", files))
    assert texts(shard.classes) == ("5", "tabby") and contents(shard) == [b"A", b"B"]
    assert shard.left_out == 2


def test_folders_are_classes_and_an_archive_without_any_has_none(tmp_path):
    folders = {"train/cat/1.jpg": b"1", "train/dog/1.jpg": b"2", "train/dog/2.JPEG": b"3"}
    assert texts(scan(tar_of(tmp_path / "a.tar", folders)).classes) == ("cat", "dog", "dog")
    assert texts(scan(tar_of(tmp_path / "n01440764.tar", {"1.JPEG": b"1"})).classes) == ("",)


def test_names_longer_than_a_header_holds(tmp_path):
    name = "/".join(["a" * 90] * 3) + "/image.jpg"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        shard = scan(tar_of(tmp_path / "a.tar", {name: b"content"}, form))
        assert texts(shard.names) == (name,) and contents(shard) == [b"content"]


def test_links_folders_and_devices_are_no_images(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            about = tarfile.TarInfo(f"{kind.decode()}.jpg")
            about.type, about.linkname = kind, "/etc/passwd"
            archive.addfile(about)
        about = tarfile.TarInfo("../../real.jpg")
        about.size = 3
        archive.addfile(about, io.BytesIO(b"abc"))
    shard = scan(path)
    assert texts(shard.names) == ("../../real.jpg",) and contents(shard) == [b"abc"]


@pytest.mark.parametrize(
    "name, key, ending",
    [
        ("a/b.c/d.seg.png", "a/b.c/d", ".seg.png"),
        ("x.JPG", "x", ".jpg"),
        ("folder/none", "folder/none", ""),
        ("folder/.hidden", "folder/", ".hidden"),
    ],
)
def test_keys_and_endings(name, key, ending):
    assert key_and_ending(name) == (key, ending)


def test_every_cut_is_noticed(tmp_path):
    whole = tar_of(tmp_path / "a.tar", SAMPLES, tarfile.USTAR_FORMAT).read_bytes()
    last = 10 * 512 + 3 * 512  # ten blocks of headers and labels, three of the second image
    cut = tmp_path / "cut.tar"
    for size in range(0, last, 100):
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.tar") as error:
            scan(cut)
        assert "Traceback" not in str(error.value)


def test_every_damaged_header_is_noticed(tmp_path):
    whole = tar_of(tmp_path / "a.tar", SAMPLES, tarfile.USTAR_FORMAT).read_bytes()
    damaged = tmp_path / "damaged.tar"
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    assert len(headers) == len(SAMPLES)
    for at in headers:
        content = bytearray(whole)
        content[at + 2] ^= 4
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged\.tar"):
            scan(damaged)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"00001.cls": None}, "1 of 3 images have no label, the first is 00001"),
        ({"00001.cls": b""}, "00001.cls: expected the number or the name"),
        ({"00001.cls": b"\xff"}, "00001.cls: expected the number or the name"),
        ({"00001.cls": None, "00001.json": b"[1]"}, "expected an object with one of label"),
        ({"00001.cls": None, "00001.json": b'{"a": 1}'}, "found a"),
        ({"00001.cls": None, "00001.json": b'{"label": 1.5}'}, "found 1.5"),
        ({"00001.cls": None, "00001.json": b"[" * 100_000}, "expected an object"),
        ({"00001.cls": b"1" * 2**21}, "should be a label"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path, change, said):
    files = {}
    for name, content in SAMPLES.items():
        files[name] = content
        if name == "00001.jpg":
            files |= change
        if name in change:
            files[name] = change[name]
    kept = {name: content for name, content in files.items() if content is not None}
    with pytest.raises(UserError, match=said):
        scan(tar_of(tmp_path / "a.tar", kept))


def test_a_compressed_archive_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(tar_of(path, SAMPLES).read_bytes()))
    with pytest.raises(UserError, match="unpack it once with `gunzip`"):
        scan(path)
    with pytest.raises(UserError, match="Cannot read"):
        scan(tmp_path / "none.tar")
