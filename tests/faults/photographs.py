"""Photographs in every format, and what may happen to their files."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from mixerkit.data.decode import MAX_BYTES

WIDTH, HEIGHT = 72, 56
LARGE = 7000
"""Pixels on a side: just below the limit, so that such an image takes as much as any may."""

# What must become of a file: it is listed, it is read, or either.
BROKEN, WHOLE, EITHER = "broken", "whole", "either"


def encode(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photographs() -> list[bytes]:
    """Two real photographs, small, as files of every format and kind of pixels that is taken."""
    found = []
    for pixels in load_sample_images().images:
        rgb = Image.fromarray(pixels).crop((100, 80, 100 + WIDTH, 80 + HEIGHT))
        grey, palette, alpha = rgb.convert("L"), rgb.convert("P"), rgb.convert("RGBA")
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a photograph"
        found += [
            encode(rgb, "JPEG", exif=exif), encode(rgb, "JPEG", progressive=True),
            encode(rgb.convert("CMYK"), "JPEG"), encode(grey, "JPEG"),
            encode(rgb, "PNG", exif=exif), encode(palette, "PNG", transparency=3),
            encode(alpha, "PNG"), encode(rgb.convert("LA"), "PNG"), encode(deep, "PNG"),
            encode(palette, "GIF", transparency=3),
            encode(rgb, "GIF", save_all=True, append_images=[grey]),
            encode(rgb, "BMP"), encode(palette, "BMP"), encode(rgb.convert("1"), "BMP"),
            encode(rgb, "TIFF", exif=exif), encode(rgb, "TIFF", compression="jpeg"),
            encode(deep, "TIFF", compression="tiff_lzw"),
            encode(alpha, "TIFF", compression="tiff_adobe_deflate"),
            encode(rgb, "WEBP"), encode(alpha, "WEBP", lossless=True),
        ]  # fmt: skip
    return found


def cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def damage_head(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 6)):
        changed[random.randrange(min(64, len(changed)))] = random.randrange(256)
    return bytes(changed)


def large_numbers(content: bytes, random: Random) -> bytes:
    """Sizes and offsets stand in the first few hundred bytes."""
    at = random.randrange(min(400, len(content) - 4))
    number = random.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", bytes(4)))
    return content[:at] + number + content[at + 4 :]


def blank_a_block(content: bytes, random: Random) -> bytes:
    """As a disk that lost a block gives it back."""
    at, size = random.randrange(len(content)), random.choice((16, 512, 4096))
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


def junk_inside(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content))
    return content[:at] + random.randbytes(random.randint(1, 200)) + content[at:]


def junk_in_exif(content: bytes, random: Random) -> bytes:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    head = random.choice((b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    junk = head + random.randbytes(random.randint(1, 300))
    return encode(image, random.choice(("JPEG", "PNG", "WEBP")), exif=junk)


def another_format(_: bytes, random: Random) -> bytes:
    grey = Image.new("L", (20, 20))
    return random.choice(
        (b"", b"hello", b"<html><body>404", b"%PDF-1.7\n", bytes(5000), encode(grey, "PPM"),
         encode(grey, "ICO"), encode(grey, "TGA"), random.randbytes(3000))
    )  # fmt: skip


def odd_mode(content: bytes, random: Random) -> bytes:
    """32-bit pixels, which have no fixed range."""
    image = Image.open(io.BytesIO(content)).convert("L").convert(random.choice("FI"))
    return encode(image, "TIFF", compression=random.choice((None, "tiff_lzw")))


CHANGES: dict[str, tuple[Callable[[bytes, Random], bytes], str]] = {
    "cut": (cut, EITHER),
    "cut in half": (lambda content, _: content[: len(content) // 2], BROKEN),
    "bits flipped": (flip_bits, EITHER),
    "head damaged": (damage_head, EITHER),
    "large numbers": (large_numbers, EITHER),
    "a block blank": (blank_a_block, EITHER),
    "junk inside": (junk_inside, EITHER),
    "junk in EXIF": (junk_in_exif, EITHER),
    "another format": (another_format, BROKEN),
    "odd mode": (odd_mode, BROKEN),
    "untouched, perhaps under a wrong name": (lambda content, _: content, WHOLE),
}
"""Changes of a file's bytes, and what must become of the file."""


def png_of_size(side: int) -> bytes:
    """A PNG whose head tells of side × side pixels, which it has not."""
    content = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def png_with_inflated_profile() -> bytes:
    """A PNG with 100 MB of colour profile in 100 kB."""
    plain = encode(Image.new("L", (8, 8)), "PNG")
    body = b"iCCP" + b"x\0\0" + zlib.compress(bytes(100_000_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunk + plain[33:]


def webp_of_size(side: int) -> bytes:
    content = bytearray(encode(Image.new("RGB", (64, 64)), "WEBP", lossless=True))
    rest = int.from_bytes(content[21:25], "little") & ~0xFFFFFFF
    content[21:25] = (rest | (side - 1) | (side - 1) << 14).to_bytes(4, "little")
    return bytes(content)


def tiff_with_tile(width: int, height: int) -> bytes:
    """A small TIFF whose only tile is huge; of that there is only a beginning."""
    content = zlib.compress(bytes(4096))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height}
    tags |= {324: 8 + 2 + 12 * 10 + 4, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def bombs() -> dict[str, bytes]:
    """Small files of images far above the limits."""
    small = Image.new("RGB", (8, 8))
    jpeg = encode(small, "JPEG")
    size_in_jpeg = jpeg.index(b"\xff\xc0") + 5
    return {
        "PNG head": png_of_size(60_000),
        "PNG": encode(Image.new("1", (10_000, 10_000)), "PNG"),
        "PNG profile": png_with_inflated_profile(),
        "JPEG head": patched(jpeg, size_in_jpeg, struct.pack(">HH", 65_000, 65_000)),
        "GIF head": patched(encode(small, "GIF"), 6, struct.pack("<HH", 65_535, 65_535)),
        "BMP head": patched(encode(small, "BMP"), 18, struct.pack("<ii", 2**30, 2**30)),
        "WebP head": webp_of_size(13_000),
        "TIFF tile": tiff_with_tile(40_000, 50_000),
    }


@cache
def large_images() -> dict[str, bytes]:
    """Small files of images that are just within the limits, of the kinds that take the most."""
    exif = Image.Exif()
    exif[0x0112] = 6
    size = (LARGE, LARGE)
    return {
        "RGBA PNG": encode(Image.new("RGBA", size), "PNG", exif=exif),
        "RGBA WebP": encode(Image.new("RGBA", size), "WEBP", lossless=True),
        "16-bit TIFF": encode(Image.new("I;16", size), "TIFF", compression="tiff_lzw"),
        "CMYK JPEG": encode(Image.new("CMYK", size), "JPEG"),
    }


def huge_file(path: Path) -> None:
    """Above the limit of bytes, without a block on the disk."""
    path.touch()
    os.truncate(path, MAX_BYTES + 1)


NOT_FILES: tuple[Callable[[Path], None], ...] = (
    os.mkfifo,
    os.mkdir,
    huge_file,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("."),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.symlink_to(path.name),
)
"""What can stand where a file is expected, and is to be listed."""
