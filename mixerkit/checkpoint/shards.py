"""Tensors that several processes write together, each its share of every one: a file for each
process, in PyTorch's distributed form of safetensors, from which any number of processes read."""

import errno
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixerkit.checkpoint.files import sync
from mixerkit.checkpoint.tensors import Shape, TensorFile, shards_of
from mixerkit.errors import RunFailed, UserError

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.int64: "I64"}
"""safetensors' names of what a run keeps."""
BROKEN = (SafetensorError, OSError, RuntimeError, LookupError, TypeError, ValueError)
"""What PyTorch's reader raises for files that are not whole, or not its own."""


def write_share(folder: Path, tensors: dict[str, Tensor], rank: int) -> int:
    """Write this process's share of `tensors` into `folder`; all processes that have joined call it
    together. What is no DTensor is the same in all, and stored by the first. Gives how many files
    this process has written.

    Raises `OSError` in all of them where one cannot write.
    """
    try:
        save(
            dict[str, Any](sorted(tensors.items())),  # an optimiser's come in any order
            storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True),
            planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
        )
    except CheckpointException as error:
        raise _first_cause(error) from error
    own = [path for path in shards_of(folder) if path.name.startswith(f"shard-{rank + 1:05}-")]
    for path in own:
        _put_in_order(path)
        sync(path)
    return len(own)


def _put_in_order(path: Path) -> None:
    """Sort what safetensors writes about a file in any order, so that equal shares are equal
    files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # blanks at its end belong to the form
            file.seek(8)
            file.write(text.ljust(length))


def _first_cause(error: CheckpointException) -> Exception:
    """What went wrong in one of the processes: the system's own error, if there is one."""
    causes = [cause for _, (cause, _) in sorted(error.failures.items())]
    for cause in causes:
        if isinstance(cause, OSError):
            return OSError(cause.errno, cause.strerror, cause.filename)
    text = (str(causes[0]) if causes else str(error)) or type(error).__name__
    if "No space left" in text:  # safetensors' own error says it in words
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return RunFailed(text.splitlines()[0])


def read_all(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, whole, from the shares of however many processes."""
    reader = _Reader(folder)
    tensors = {name: torch.empty(size, dtype=dtype) for name, (dtype, size) in reader.kinds.items()}
    _load(reader, tensors)
    return tensors


@contextmanager
def open_shards(folder: Path) -> Iterator[TensorFile]:
    """The tensors of a folder, whole, to be read one at a time."""
    reader = _Reader(folder)
    kinds = reader.kinds
    shapes = {name: Shape(NAMES.get(dtype, "?"), size) for name, (dtype, size) in kinds.items()}

    def read(name: str) -> Tensor:
        dtype, size = kinds[name]
        wanted = {name: torch.empty(size, dtype=dtype)}
        _load(reader, wanted)
        return wanted[name]

    yield TensorFile(shards_of(folder)[0], shapes, read)


class _Reader(HuggingFaceStorageReader):  # type: ignore[misc]
    """Knows what is in the files of a folder after one look at them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        try:
            self.known = super().read_metadata()
        except BROKEN as error:
            raise UserError(f"{folder} does not hold whole shards of tensors: {error}.") from error
        self.kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for name, one in self.known.state_dict_metadata.items():
            if not isinstance(one, TensorStorageMetadata):
                continue
            # before memory of the size is taken: the shares must be all of it
            if sum(prod(chunk.sizes) for chunk in one.chunks) != prod(one.size):
                raise UserError(f"{folder} does not hold all of the tensor '{name:.80}'.")
            self.kinds[name] = (one.properties.dtype, tuple(one.size))

    def read_metadata(self) -> Metadata:
        """What was found."""
        return self.known


def _load(reader: _Reader, tensors: dict[str, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this process reads alone, which is meant
        load(dict[str, Any](tensors), storage_reader=reader, no_dist=True)
