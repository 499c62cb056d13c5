"""The IDX format of MNIST and its family: a small header, then bytes in row order."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from mixerkit.errors import UserError

MAX_BYTES = 1 << 30


def read_idx(path: Path, dimensions: int) -> tuple[np.ndarray, str]:
    """The uint8 array of an IDX file, plain or gzipped (by its `.gz`), and the MD5 of the
    decompressed file. A wrong header, a short or a too long file raises `UserError`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            shape = _shape(path, header, dimensions)
            content = file.read(math.prod(shape))
            more = file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}.") from error
    if len(content) != math.prod(shape) or more:
        raise UserError(
            f"{path} is damaged: its header announces {math.prod(shape)} bytes, found "
            f"{'more' if more else len(content)}."
        )
    digest = hashlib.md5(header + content, usedforsecurity=False).hexdigest()
    return np.frombuffer(content, np.uint8).reshape(shape), digest


def _shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    """The announced shape, checked before any memory is taken for it."""
    wanted = bytes([0, 0, 8, dimensions])
    if len(header) != 4 + 4 * dimensions or header[:4] != wanted:
        raise UserError(
            f"{path} is not an IDX file of bytes in {dimensions} dimensions: expected it to "
            f"start with {wanted.hex(' ')}, found {header[:4].hex(' ') or 'nothing'}."
        )
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise UserError(f"{path} announces the shape {shape}: not a size that can be read.")
    return shape
