"""Image files that end too early: the page refuses every one that Python refuses, and no whole one.

Files are cut after each of their bytes, and judged by what the page reads of a file before the
browser decodes it: what browsers make of half a file is left to them.
"""

import io
import json
import struct
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mixerkit.data.decode import BrokenImage, open_image
from mixerkit.inference.web_export import MEDIA
from tests.browser import Pipe
from tests.inference.page.visit import Site, opened, photograph

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Corrupt EXIF data")]

PHOTOGRAPH = Image.fromarray(photograph(9, 31))


def encoded(kind: str, image: Image.Image = PHOTOGRAPH, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def animation() -> bytes:
    return encoded("GIF", save_all=True, append_images=[PHOTOGRAPH.rotate(180)], comment=b"c" * 300)


def bitmap(
    bits: int, *, head: int = 40, begins: int | None = None, size: int = 0, top_down: bool = False
) -> bytes:
    """A BMP of 31 × 9 px that says that its pixels begin at `begins`, and its size in bytes."""
    entry = 3 if head == 12 else 4
    palette = (bytes(range(256)) * 4)[: entry << bits] if bits <= 8 else b""
    if head == 12:
        info = struct.pack("<IHHHH", 12, 31, 9, 1, bits)
    else:
        info = struct.pack("<IiiHH", head, 31, -9 if top_down else 9, 1, bits).ljust(head, b"\0")
    if begins is None:
        begins = 14 + head + len(palette)
    rows = (bytes(range(256)) * 5)[: (31 * bits + 31) // 32 * 4 * 9]
    return b"BM" + struct.pack("<IHHI", size, 0, 0, begins) + info + palette + rows


def run_lengths() -> bytes:
    """A BMP of 8 bits with run lengths: a colour to a row."""
    plain = bitmap(8)[: 54 + 1024]
    runs = b"".join(bytes([31, 9 * y, 0, 0]) for y in range(9)) + b"\0\1"
    return plain[:30] + struct.pack("<II", 1, len(runs)) + plain[38:] + runs


def with_changes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
GIF = encoded("GIF")
JPEG = encoded("JPEG", exif=EXIF)
WHOLE: dict[str, bytes] = {
    "png": encoded("PNG"),
    "jpeg": JPEG,
    "jpeg, progressive": encoded("JPEG", progressive=True),
    "jpeg, stray bytes": JPEG[:20] + b"\0\0\0" + JPEG[20:],
    "webp": encoded("WEBP"),
    "webp, lossless": encoded("WEBP", lossless=True),
    "webp, exif": encoded("WEBP", exif=EXIF),
    "gif": GIF,
    "gif, no trailer": GIF.removesuffix(b";"),
    "gif, larger than it says": with_changes(GIF, 6, struct.pack("<HH", 5, 5)),
    "gif, animated": animation(),
    "gif, grey": encoded("GIF", PHOTOGRAPH.convert("L")),
    "gif, interlaced": encoded("GIF", interlace=True),
    "bmp": encoded("BMP"),
    "bmp, palette": encoded("BMP", PHOTOGRAPH.quantize(20)),
    **{f"bmp, {bits} bits": bitmap(bits) for bits in (1, 4, 8, 16, 24, 32)},
    "bmp, os/2": bitmap(24, head=12),
    "bmp, os/2, palette": bitmap(8, head=12),
    "bmp, version 5": bitmap(24, head=124),
    "bmp, top down": bitmap(24, top_down=True),
    "bmp, begins at 0": bitmap(24, begins=0),
    "bmp, begins at its palette": bitmap(8, begins=54),
    "bmp, says 1 GiB": bitmap(24, size=2**30),
    "bmp, run lengths": run_lengths(),
}
SPARED = {"png": 21, "gif": 1, "bmp": 4}
"""Bytes at the end without which Python still has all pixels, and the page refuses: a PNG's last
checksums, a GIF's sign for the image's end, a BMP's sign for the end of run lengths."""

HEADS = """(async (texts) => {
  const { head } = await import("./image_file.js");
  const { BadImage } = await import("./pixels.js");
  function isWhole(bytes) {
    try {
      const { width, height, whole } = head(bytes, []);
      return width > 0 && height > 0 && whole;
    } catch (error) {
      if (error instanceof BadImage) return false;
      throw error;
    }
  }
  return texts.map((text) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return Array.from({ length: bytes.length + 1 }, (_, end) => isWhole(bytes.subarray(0, end)));
  });
})(%s)"""


def python_accepts(content: bytes, path: Path) -> bool:
    path.write_bytes(content)
    try:
        open_image(path)
    except BrokenImage:
        return False
    return True


def test_cut_after_every_byte(browser: Pipe, fashion: Site, tmp_path: Path) -> None:
    """Whole from one byte on: where Python finds all pixels, or a few bytes later."""
    texts = [b64encode(content).decode() for content in WHOLE.values()]
    with opened(browser, fashion) as page:
        found = page.run(HEADS % json.dumps(texts))
    for (name, content), accepts in zip(WHOLE.items(), found, strict=True):
        assert accepts[-1] and accepts == sorted(accepts), name
        first = accepts.index(True)
        needed = first - SPARED.get(name.split(",")[0], 0)
        assert python_accepts(content[:first], tmp_path / "x"), name
        assert not python_accepts(content[: needed - 1], tmp_path / "x"), name


SIZES = """(async (texts, formats) => {
  const { opened } = await import("./image_file.js");
  const rule = { formats, most_bytes: 1e6, most_pixels: 31 * 9 };
  const found = [];
  for (const text of texts) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const { width, height } = await opened(new Blob([bytes]), rule);
    found.push([width, height]);
  }
  return found;
})(%s, %s)"""


def test_whole_files_are_opened(browser: Pipe, fashion: Site) -> None:
    """Whatever their heads say."""
    texts = [b64encode(content).decode() for content in WHOLE.values()]
    with opened(browser, fashion) as page:
        found = page.run(SIZES % (json.dumps(texts), json.dumps(MEDIA)))
    assert dict(zip(WHOLE, found, strict=True)) == {name: [31, 9] for name in WHOLE}


def test_the_limit_is_of_what_is_decoded(browser: Pipe, fashion: Site) -> None:
    """A GIF whose image is larger than its screen takes the memory of the image."""
    text = b64encode(WHOLE["gif, larger than it says"]).decode()
    script = SIZES % (json.dumps([text]), json.dumps(MEDIA))
    with opened(browser, fashion) as page, pytest.raises(RuntimeError, match="31 × 9 px are above"):
        page.run(script.replace("31 * 9", "100"))
