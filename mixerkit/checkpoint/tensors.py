"""Named tensors in a safetensors file: exact bits, no code, and errors that name the file."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixerkit.checkpoint.documents import json_mapping
from mixerkit.errors import Unreadable, UserError

LONGEST_HEADER = 8 * 2**20
"""Bytes; a tensor takes some 100 of them."""


@dataclass(frozen=True)
class Shape:
    """What a file's header says of one tensor; `dtype` is safetensors' name ("F32")."""

    dtype: str
    size: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """An opened file of named tensors: shapes at once, contents one by one.

    `read` gives a tensor in memory of its own. `note` is a sentence about what was chosen where
    the file has the weights more than once.
    """

    path: Path
    shapes: dict[str, Shape]
    read: Callable[[str], Tensor]
    note: str = ""


def is_shard(name: str) -> bool:
    """Whether a file of this name has one process's share of tensors (`shards.py`)."""
    return re.fullmatch(r"shard-\d+-.*\.safetensors", name) is not None


def shards_of(folder: Path) -> list[Path]:
    """The files of a folder that hold shares of tensors, by rank."""
    return sorted(path for path in folder.iterdir() if is_shard(path.name))


def part_of(file: TensorFile, part: str) -> TensorFile:
    """The tensors whose names begin with `part`, under the rest of their names."""
    names = {name.removeprefix(part): name for name in file.shapes if name.startswith(part)}
    shapes = {short: file.shapes[name] for short, name in names.items()}
    return TensorFile(file.path, shapes, lambda short: file.read(names[short]), file.note)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` as they are, from any device; views of one storage are stored apart."""
    try:
        save_file(_apart(tensors), path)
    except SafetensorError as error:
        raise OSError(_number(str(error)), str(error), str(path)) from error


def _number(text: str) -> int:
    """The system's number in an error of safetensors', "… (os error 28)"; EIO without any."""
    found = re.search(r"\(os error (\d+)\)", text)
    if found:
        return int(found[1])
    return errno.ENOSPC if "No space left" in text else errno.EIO


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the processor, each with a storage of its own."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        pointer = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if pointer in seen else plain
        seen.add(pointer)
    return apart


@contextmanager
def open_safetensors(path: Path) -> Iterator[TensorFile]:
    """The tensors of a safetensors file, to be read one at a time."""
    with _opened(path) as file:
        _check_names(path)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {
            name: Shape(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
        }
        yield TensorFile(path, shapes, lambda name: _read_one(path, name))


def _read_one(path: Path, name: str) -> Tensor:
    """One tensor, from a mapping of the file of its own.

    Pages of a mapping count as memory of the process until it is closed: one mapping for all
    tensors would hold the whole file beside the copies.
    """
    with _opened(path) as file:
        try:
            return file.get_tensor(name).clone()
        except (SafetensorError, RuntimeError, TypeError, OverflowError) as error:
            # numbers that PyTorch does not know, a side of 2⁶³, no memory
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: cannot read '{name:.80}': {reason:.200}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor, in memory of its own: the file may be removed or replaced afterwards."""
    with open_safetensors(path) as file:
        return {name: file.read(name) for name in file.shapes}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing, or not a plain file.")
    try:
        if (length := _header_bytes(path)) > LONGEST_HEADER:
            raise UserError(
                f"{path} is not a whole safetensors file: it says that its header has {length:,} "
                f"bytes, and at most {LONGEST_HEADER:,} are read."
            )
        opened = safe_open(path, "pt")
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): download or copy it again."
        ) from error
    except (OSError, RuntimeError) as error:  # PyTorch's own, for a file that has just gone
        raise Unreadable(f"Cannot read {path}: {str(error).splitlines()[0]}.") from error
    with opened as file:
        yield file


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _check_names(path: Path) -> None:
    """Refuse a name that the header gives twice: safetensors takes the last in silence."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        json_mapping(f"The header of {path}", file.read(length))


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    """The smallest and the greatest number tell, without memory of the tensor's size."""
    return tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all())
