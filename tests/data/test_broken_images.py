"""Images that cannot be used: told from what the disk refuses, named, never blindly unpacked."""

import errno
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from mixerkit.data import decode
from mixerkit.data.budget import Budget
from mixerkit.data.decode import BrokenImage, fit, open_image, read
from mixerkit.errors import UserError
from mixerkit.results import usable_cores
from mixerkit.spec.preprocess import Preprocess
from tests.data.pictures import colour, ramp, save

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.gif"])
def test_a_file_cut_short_is_named(tmp_path, name):
    pixels = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / name, Image.fromarray(pixels))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=name):
        open_image(path)


@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]), st.data())
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_an_image_or_a_user_error(tmp_path_factory, kind, data):
    content = io.BytesIO()
    Image.fromarray(colour()).save(content, format=kind)
    broken = bytearray(content.getvalue())
    for _ in range(3):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("broken") / "broken.img"
    path.write_bytes(broken)
    try:
        assert open_image(path).mode in ("L", "RGB")
    except UserError as error:
        assert "broken.img" in str(error)


BROKEN = {
    "not an image": lambda path: path.write_bytes(b"hello"),
    "empty": lambda path: path.write_bytes(b""),
    "a format that is not allowed": lambda path: Image.fromarray(ramp()).save(path, format="PPM"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "32-bit float": lambda path: Image.fromarray(ramp().astype(np.float32)).save(
        path, format="TIFF"
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_named_and_its_reason_is_not_tied_to_the_place(tmp_path, case):
    reasons = set()
    for name in ("photo.dat", "other.dat"):
        BROKEN[case](tmp_path / name)
        with pytest.raises(BrokenImage, match=name) as broken:
            open_image(tmp_path / name)
        reasons.add(broken.value.reason)
    assert len(reasons) == 1 and "dat" not in reasons.pop()


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(BrokenImage, match=r"the file is empty\. Replace it by a whole copy"):
        open_image(tmp_path / "photo.png")


def raising(error: OSError):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# What the operating system refuses because of the file → the message.
OF_THE_FILE = {
    "missing": (lambda path, _: path.unlink(), "No such file"),
    "its folder is a file": (
        lambda path, _: (path.unlink(), path.parent.rmdir(), path.parent.touch()),
        "Not a directory",
    ),
    "a link to nothing": (
        lambda path, _: (path.unlink(), path.symlink_to("nowhere")),
        "it is a link that leads nowhere",
    ),
    "endless links": (
        lambda path, _: (path.unlink(), path.symlink_to(path)),
        "Too many levels of symbolic links",
    ),
    "no permission": (
        lambda _, patch: patch.setattr(Path, "open", raising(PermissionError(13, "Denied"))),
        "Denied",
    ),
}


@pytest.mark.parametrize("case", OF_THE_FILE)
def test_a_file_that_is_gone_or_not_to_be_read_is_a_broken_image(tmp_path, monkeypatch, case):
    (tmp_path / "photos").mkdir()
    path = save(tmp_path / "photos" / "photo.png", Image.fromarray(ramp()))
    cause, message = OF_THE_FILE[case]
    cause(path, monkeypatch)
    with pytest.raises(BrokenImage, match=rf"photo\.png: {message}") as refused:
        read(path, Preprocess(image_size=8), fit)
    assert "photo" not in refused.value.reason


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE])
def test_a_failing_disk_is_not_a_broken_image(tmp_path, monkeypatch, number):
    path = save(tmp_path / "photo.png", Image.fromarray(ramp()))
    monkeypatch.setattr(Path, "open", raising(OSError(number, os.strerror(number))))
    with pytest.raises(UserError, match=rf"photo\.png: {os.strerror(number)}") as refused:
        read(path, Preprocess(image_size=8), fit)
    assert not isinstance(refused.value, BrokenImage)


def test_a_name_that_no_file_can_have():
    with pytest.raises(UserError, match="null") as refused:
        open_image(Path("a\0b.png"))
    assert not isinstance(refused.value, BrokenImage)


def test_too_little_memory_is_not_a_broken_image(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    monkeypatch.setattr(decode, "_as_8_bit", raising(MemoryError()))
    with pytest.raises(MemoryError):
        open_image(path)


def test_settings_that_do_not_fit_are_not_a_broken_image(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    for preprocess in (Preprocess(image_size=8, resize="none"), Preprocess(8, channels=5)):
        with pytest.raises(UserError, match=r"a\.png") as refused:
            read(path, preprocess, fit)
        assert not isinstance(refused.value, BrokenImage)


def test_the_byte_limit_holds_before_the_file_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(decode.MAX_BYTES + 1)  # no blocks on the disk
    monkeypatch.setattr(Path, "open", raising(AssertionError("opened")))
    with pytest.raises(BrokenImage, match=r"large\.png.*160 MiB are above the limit"):
        open_image(path)


def test_the_pixel_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 24 * 32 - 1)
    with pytest.raises(UserError, match=r"a\.png: 32 × 24 px is above the limit"):
        open_image(save(tmp_path / "a.png", Image.fromarray(ramp())))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, side):
    path = save(tmp_path / "bomb.png", Image.new("1", (8, 8)))
    content = bytearray(path.read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(BrokenImage, match=r"bomb\.png.*above the limit"):
        open_image(path)


def tiff(side: int, tile: int) -> bytes:
    """A grey image of side × side pixels, stored in one tile: the head is all there is."""
    content = zlib.compress(bytes(100))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile}
    tags |= {324: 8 + 2 + 12 * 10 + 4, 325: len(content)}  # where the tile is, and its size
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


def test_a_small_image_in_a_huge_tile_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "tile.tif"
    path.write_bytes(tiff(64, 7072))
    with pytest.raises(BrokenImage, match=r"tile\.tif.*one of its tiles is above the limit"):
        open_image(path)
    path.write_bytes(tiff(64, 64))  # cut short, but no bomb
    with pytest.raises(BrokenImage, match=r"tile\.tif.*cut short"):
        open_image(path)


def test_a_very_long_image_does_not_take_all_memory(tmp_path):
    path = save(tmp_path / "long.png", Image.new("L", (30_000, 1)))
    with pytest.raises(BrokenImage, match=r"long\.png.*too long and narrow"):
        read(path, Preprocess(image_size=224, resize="shortest"), fit)


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from mixerkit.data.decode import fit
from mixerkit.data.pixels import Pixels, Reading
from mixerkit.data.splits import ImageSplit
from mixerkit.spec.preprocess import Preprocess

def megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))

split = ImageSplit("large", ("a",), np.zeros(4, int), None, (Path(sys.argv[1]),) * 4)
before = megabytes()
list(Pixels(split, Preprocess(32), fit, 0.0).batches([np.arange(4)], Reading(workers=4)))
print(megabytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux")
@pytest.mark.skipif(usable_cores() > 4, reason="more processors may decode more at a time")
def test_images_at_the_limit_do_not_add_up_over_threads(tmp_path):
    """Of the kind that takes the most: decoder, canvas and result have four bytes a pixel each."""
    path = save(tmp_path / "large.webp", Image.new("RGBA", (7000, 7000)), lossless=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1000


def test_decoding_keeps_to_its_budget(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    monkeypatch.setattr(decode, "DECODING", Budget(2 * 24 * 32))
    at_work, most = [], []

    def prepare(image: Image.Image, _: Preprocess) -> np.ndarray:
        at_work.append(image)
        most.append(len(at_work))
        time.sleep(0.001)
        at_work.remove(image)
        return np.asarray(image)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: read(path, Preprocess(8), prepare), range(60)))
    assert max(most) == 2 and decode.DECODING.free == 2 * 24 * 32
