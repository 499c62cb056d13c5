"""NumPy .npz files without pickles: sizes are read and judged before memory is taken."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mixerkit.checkpoint.files import atomic_file
from mixerkit.checkpoint.tensors import Shape, TensorFile
from mixerkit.errors import UserError

DTYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "|V2": "BF16"}
"""NumPy's descriptions of the numbers that models are made of; JAX writes bfloat16 as two plain
bytes. Other numbers are described under NumPy's own names, and whoever reads may refuse them."""
LONGEST_HEADER = 1 << 16
"""Bytes of an array's header that are unpacked; NumPy's own take 128."""
MOST_TENSORS = 20_000
MOST_EXPANSION = 20
"""How many times larger than the file its content may be; weights hardly shrink when packed."""


@dataclass(frozen=True)
class _Array:
    """One array of the file: what its header says."""

    entry: zipfile.ZipInfo
    description: str
    size: tuple[int, ...]
    fortran: bool
    header_bytes: int


@contextmanager
def open_npz(path: Path) -> Iterator[TensorFile]:
    """The arrays of a .npz file, to be read one at a time.

    Raises `UserError` for what is no zip file of arrays, is cut short, declares more than the
    file can hold, or needs pickle.
    """
    with _errors_of(path):
        archive = zipfile.ZipFile(path)
    with archive:
        with _errors_of(path):
            arrays = _arrays(path, archive)
        shapes = {
            name: Shape(DTYPES.get(a.description, str(np.dtype(a.description))), a.size)
            for name, a in arrays.items()
        }
        yield TensorFile(path, shapes, _reader(path, archive, arrays))


def _arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, _Array]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST_TENSORS:
        raise UserError(f"{path} holds {len(entries)} files: a model has far fewer tensors.")
    declared, on_disk = sum(entry.file_size for entry in entries), path.stat().st_size
    if declared > MOST_EXPANSION * on_disk:
        raise UserError(
            f"{path} is {on_disk:,} bytes and would unpack to {declared:,}: that is no file of "
            f"weights, and it was not unpacked."
        )
    arrays: dict[str, _Array] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in arrays:
            raise UserError(f"{path} holds '{name}' twice.")
        arrays[name] = _header(path, archive, entry)
    return arrays


def _header(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Array:
    """What one array says of itself, checked against the size that the archive declares."""
    with archive.open(entry) as packed:
        file = io.BytesIO(packed.read(LONGEST_HEADER))
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            size, fortran, dtype = read(file)
        except Exception as error:  # the header is Python's text: it can be wrong in many ways
            raise UserError(f"{path}: '{entry.filename}' is not a NumPy array.") from error
        header_bytes = file.tell()
    if dtype.hasobject:
        raise UserError(
            f"{path}: '{entry.filename}' holds Python objects, which could run code; they are "
            f"never loaded. Expected arrays of floating-point numbers."
        )
    if dtype.str not in DTYPES and dtype.kind not in "biuf":
        raise UserError(f"{path}: '{entry.filename}' holds {dtype}, expected numbers.")
    if any(side < 0 for side in size):
        raise UserError(f"{path}: '{entry.filename}' says its shape is {list(size)}.")
    wanted = math.prod(size) * dtype.itemsize
    if entry.file_size != header_bytes + wanted:
        raise UserError(
            f"{path}: '{entry.filename}' says {list(size)}, which is {wanted:,} bytes, but holds "
            f"{entry.file_size - header_bytes:,}."
        )
    return _Array(entry, dtype.str, tuple(int(side) for side in size), fortran, header_bytes)


def _reader(
    path: Path, archive: zipfile.ZipFile, arrays: dict[str, _Array]
) -> Callable[[str], Tensor]:
    def read(name: str) -> Tensor:
        array = arrays[name]
        with _errors_of(path), archive.open(array.entry) as file:
            file.read(array.header_bytes)
            return _tensor(file, array, path)

    return read


def _tensor(file: IO[bytes], array: _Array, path: Path) -> Tensor:
    """The numbers, read straight into the memory that they stay in."""
    dtype = np.dtype(array.description)
    values = np.empty(math.prod(array.size), dtype)
    view = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    filled = 0
    while filled < len(view):
        got = file.readinto(view[filled : filled + (1 << 20)])  # type: ignore[attr-defined]
        if not got:
            raise UserError(f"{path}: '{array.entry.filename}' is cut short.")
        filled += got
    file.read(1)  # the archive compares its checksum at the end
    shaped = values.reshape(array.size, order="F" if array.fortran else "C")
    if array.description == "|V2":
        return torch.from_numpy(shaped.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(shaped)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Whatever a broken archive makes zipfile raise, as one `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error}.") from error
    except Exception as error:  # zipfile and its decompressors have a dozen kinds
        raise UserError(
            f"{path} is not a whole .npz file ({error}): download or copy it again."
        ) from error


def write_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` as .npz, uncompressed as the authors', whole or not at all.

    The same tensors give the same bytes: entries carry no time of writing.
    """
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, tensor in tensors.items():
            array = np.ascontiguousarray(tensor.detach().cpu().numpy())
            entry = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
