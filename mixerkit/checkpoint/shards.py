"""Tensors that several processes write together, each its share of every one: a file for each
process, in PyTorch's distributed form of safetensors, from which any number of processes read."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixerkit.checkpoint.files import sync
from mixerkit.checkpoint.tensors import Shape, TensorFile, is_shard
from mixerkit.errors import RunFailed, UserError

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.int64: "I64"}
"""safetensors' names of what a run keeps."""


def shards_of(folder: Path) -> list[Path]:
    """The files of a folder that hold shares of tensors, by rank."""
    return sorted(path for path in folder.iterdir() if is_shard(path.name))


def write_share(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write this process's share of `tensors` into `folder`; all processes that have joined call it
    together. What is no DTensor is the same in all, and stored once.

    Raises `OSError` in all of them where one cannot write.
    """
    before = set(shards_of(folder))
    try:
        save(
            dict[str, Any](tensors),
            storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True),
        )
    except CheckpointException as error:
        raise _first_cause(error) from error
    for path in set(shards_of(folder)) - before:
        sync(path)


def _first_cause(error: CheckpointException) -> Exception:
    """What went wrong in one of the processes: the system's own error, if there is one."""
    causes = [cause for _, (cause, _) in sorted(error.failures.items())]
    for cause in causes:
        if isinstance(cause, OSError):
            return OSError(cause.errno, cause.strerror, cause.filename)
    text = str(causes[0]) if causes else str(error)
    full = "No space left" in text
    return OSError(28, text.splitlines()[0]) if full else RunFailed(text.splitlines()[0])


def read_all(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, whole, from the shares of however many processes."""
    with open_shards(folder) as file:
        return {name: file.read(name) for name in file.shapes}


@contextmanager
def open_shards(folder: Path) -> Iterator[TensorFile]:
    """The tensors of a folder, whole, to be read one at a time."""
    first, reader = shards_of(folder)[0], HuggingFaceStorageReader(str(folder))
    try:
        found = reader.read_metadata().state_dict_metadata
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{folder} does not hold whole shards of tensors: {error}.") from error
    kinds = {
        name: (one.properties.dtype, tuple(one.size))
        for name, one in found.items()
        if isinstance(one, TensorStorageMetadata)
    }
    shapes = {name: Shape(NAMES.get(dtype, "?"), size) for name, (dtype, size) in kinds.items()}

    def read(name: str) -> Tensor:
        dtype, size = kinds[name]
        wanted: dict[str, Any] = {name: torch.empty(size, dtype=dtype)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this process reads alone, which is meant
            load(wanted, storage_reader=reader, no_dist=True)
        tensor: Tensor = wanted[name]
        return tensor

    yield TensorFile(first, shapes, read)
