"""Named tensors in a safetensors file: exact bits, no code, and errors that name the file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixerkit.errors import UserError


@dataclass(frozen=True)
class Shape:
    """What a file's header says of one tensor; `dtype` is safetensors' name ("F32")."""

    dtype: str
    size: tuple[int, ...]


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` as they are, from any device; views of one storage are stored apart."""
    try:
        save_file(_apart(tensors), path)
    except SafetensorError as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


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


def read_shapes(path: Path) -> dict[str, Shape]:
    """Dtype and size of every tensor, from the header alone."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: Shape(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
        }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor, in memory of its own: the file may be removed or replaced afterwards."""
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing, or not a plain file.")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}): download or copy it again."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error}.") from error


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
