"""Pickles that make a folder when they are unpickled, in every way that the format has, and the
archives in which PyTorch and NumPy keep pickles."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from tests.faults.mutations import packed


class ByReduce:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def text(word: str, ending: bytes = b"") -> bytes:
    """A text as an opcode of protocol 2 puts it on the stack."""
    raw = word.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw + ending


def framed(program: bytes) -> bytes:
    """Protocol 4's frame around a program."""
    return b"\x95" + len(program).to_bytes(8, "little") + program


def programs(trap: Path) -> dict[str, bytes]:
    """Name → a whole pickle that makes the folder `trap`."""
    path = str(trap)
    code = f"__import__('os').mkdir({path!r})"
    found = {f"protocol {p}": pickle.dumps(ByReduce(trap), protocol=p) for p in range(6)}
    return found | {
        "INST": b"(" + text(path) + b"ios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\n" + text(path) + b"o.",
        "NEWOBJ": b"\x80\x02cos\nmkdir\n" + text(path) + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + text(path) + b"\x85R.",
        "eval": b"\x80\x02cbuiltins\neval\n" + text(code) + b"\x85R.",
        "exec": b"\x80\x02cbuiltins\nexec\n" + text(code) + b"\x85R.",
        "old name": b"\x80\x02c__builtin__\neval\n" + text(code) + b"\x85R.",
        "dotted": b"\x80\x04" + text("builtins") + text("eval.__call__") + b"\x93"
        + text(code) + b"\x85R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\npath\n" + text("os") + b"\x86R0"
        + b"cos\nmkdir\n" + text(path) + b"\x85R.",
        "map": b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\ncos\nmkdir\n" + b"]" + text(path)
        + b"a\x86R\x85R.",
        "memo": b"\x80\x02cos\nmkdir\nq\x000h\x00" + text(path) + b"\x85R.",
        "framed": b"\x80\x04" + framed(text("os") + text("mkdir") + b"\x93" + text(path)
        + b"\x85R."),
        "pickle in a pickle": b"\x80\x02cpickle\nloads\nC" + _short(ByReduce(trap)) + b"\x85R.",
        "torch in torch": b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + _legacy(trap)
        + b"\x85R.",
        "dropped": b"\x80\x02cos\nmkdir\n" + text(path) + b"\x85R0}.",
        "state": b"\x80\x02ccollections\nOrderedDict\n)R(" + text("w") + b"cos\nmkdir\n"
        + text(path) + b"\x85Ru.",
    }  # fmt: skip


def _short(thing: object) -> bytes:
    raw = pickle.dumps(thing, protocol=2)
    return len(raw).to_bytes(1, "little") + raw


def _legacy(trap: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(ByReduce(trap), buffer, _use_new_zipfile_serialization=False)
    return len(buffer.getvalue()).to_bytes(4, "little") + buffer.getvalue()


def parts_of_pth() -> list[tuple[str, bytes]]:
    """The parts of a sound .pth file."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(2)}}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def pth(program: bytes) -> bytes:
    """A .pth file that is described by `program`."""
    return packed([(n, program if n.endswith("data.pkl") else c) for n, c in parts_of_pth()])


def legacy_pth(program: bytes) -> bytes:
    """The form before PyTorch 1.6: pickles one after the other, `program` the last."""
    sizes = {"short": 2, "int": 4, "long": 4}
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    start = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, about)]
    return b"".join(start) + program + pickle.dumps([], 2)


def doubling(times: int) -> bytes:
    """Encodes bytes as hexadecimal again and again: a small program, a large result."""
    program = b"\x80\x02c_codecs\nencode\n" + text("aaaaaaaa") + text("latin1", b"\x86R")
    for _ in range(times):
        program += b"q\x010c_codecs\nencode\nh\x01" + text("hex", b"\x86R")
    return program + b"."


def object_array(trap: Path) -> bytes:
    """A .npy file of Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([ByReduce(trap)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npy_header(description: str, shape: tuple[int, ...], version: int = 1) -> bytes:
    """The beginning of a .npy file that promises numbers of `shape`."""
    fields = {"descr": description, "fortran_order": False, "shape": shape}
    return npy_text(repr(fields).encode() + b"\n", version)


def npy_text(fields: bytes, version: int = 1) -> bytes:
    """The beginning of a .npy file whose description is any text."""
    length = len(fields).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + fields
