"""PyTorch's .pth files: read by its weights-only reader, so that no code in them runs."""

import argparse
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from mixerkit.checkpoint.tensors import Shape, TensorFile
from mixerkit.errors import UserError

WEIGHTS_UNDER = ("state_dict_ema", "model_ema", "state_dict", "model", "params")
"""Where training scripts put the weights inside what they save; the first that is there."""
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
LARGEST_PROGRAM, MOST_STEPS = 1 << 20, 200_000
"""Bytes of the pickle that describes the tensors, some hundred for each, and its instructions,
some twenty for each."""
ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "argparse Namespace",  # the arguments of a training script: plain values
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int")),
    *(f"torch {kind}Storage" for kind in ("Bool", "Byte", "Char", "Short")),
}
"""What a file of weights may name; PyTorch's weights-only reader allows more, and some of that
can be made to grow without end."""


@contextmanager
def open_pth(path: Path) -> Iterator[TensorFile]:
    """The tensors of a .pth file, to be read one at a time.

    Raises `UserError` for what is cut short, needs more than tensors and plain containers, or
    declares tensors larger than the memory that the file gives them.
    """
    _check_archive(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise UserError(
            f"{path} holds Python objects besides tensors, which could run code: they are never "
            f"loaded. Save its state_dict alone, best as safetensors."
        ) from error
    except Exception as error:  # broken bytes make the reader fail in many ways
        reason = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"Cannot read {path}: {reason[0]:.200}") from error
    tensors, note = _tensors(path, content)
    shapes = {
        name: Shape(DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape))
        for name, t in tensors.items()
    }
    yield TensorFile(path, shapes, lambda name: tensors[name].clone(), note)


def _check_archive(path: Path) -> None:
    """A .pth is a zip file whose parts are stored as they are: nothing in it can expand."""
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _problem(archive.infolist(), path.stat().st_size)
            text = b"" if problem else archive.read(_programs(archive.infolist())[0])
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # zipfile has a dozen kinds
        if path.suffix == ".bin" and (graph := path.with_suffix(".xml")).is_file():
            raise UserError(f"{path} has the weights of {graph}: give that one.") from error
        raise UserError(
            f"{path} is no whole .pth file of PyTorch 1.6 or newer ({error}): copy it again, or "
            f"load it in PyTorch and save its state_dict as safetensors."
        ) from error
    if problem:
        raise UserError(f"{path}: {problem}")
    _check_program(path, text)


def _programs(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The parts that PyTorch's own reader of archives may take for data.pkl, in any case."""
    return [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str:
    """Why an archive of `size` bytes cannot be PyTorch's; empty when it can."""
    programs = _programs(entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "it is compressed, which PyTorch's files never are."
    if sum(entry.file_size for entry in entries) > size:
        return f"it declares more bytes than its {size:,}."
    if len(programs) != 1:
        return f"expected one description of the tensors, found {len(programs)}."
    if programs[0].file_size > LARGEST_PROGRAM:
        return "its description of the tensors is too large to be one."
    return ""


def _check_program(path: Path, text: bytes) -> None:
    """Refuse, before it is run, a pickle that names anything but tensors and plain containers."""
    try:
        named, steps = _named(text)
    except Exception as error:
        raise UserError(f"Cannot read {path}: its description is broken ({error}).") from error
    if steps > MOST_STEPS:
        raise UserError(f"{path}: its description of the tensors is too large to be one.")
    if refused := sorted(named - ALLOWED):
        raise UserError(
            f"{path} holds Python objects besides tensors, which could run code: they are never "
            f"loaded ({', '.join(refused)}). Save its state_dict alone, best as safetensors."
        )


def _named(text: bytes) -> tuple[set[str], int]:
    """The Python objects that a pickle names, and the number of its instructions; after
    `MOST_STEPS` of them no more is read."""
    named, steps = set(), 0
    for step, argument, _ in pickletools.genops(text):
        steps += 1
        if step.name in ("GLOBAL", "INST"):
            named.add(str(argument))
        elif step.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            named.add("something in a way that PyTorch does not")
        if steps > MOST_STEPS:
            break
    return named, steps


def _tensors(path: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    """The named tensors, from under the key where training scripts put them, and a sentence about
    the key where there are several."""
    places = content if isinstance(content, dict) else {}
    keys = [key for key in WEIGHTS_UNDER if isinstance(places.get(key), dict)]
    if keys:
        content = content[keys[0]]
    others = " and ".join(keys[1:])
    note = f"Of the weights in the file, {keys[0]} was taken, not {others}." if others else ""
    found = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(name, str) and isinstance(value, Tensor):
            found[name] = value
    if not found:
        raise UserError(f"{path} holds no named tensors of weights.")
    declared, size = sum(t.numel() * t.element_size() for t in found.values()), path.stat().st_size
    if declared > size:  # a shared or repeated storage would grow when it is copied
        raise UserError(
            f"{path} is {size:,} bytes, and its tensors say that they are {declared:,}: it was "
            f"not loaded."
        )
    return found, note
