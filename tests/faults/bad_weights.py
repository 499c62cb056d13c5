"""Files of weights made to harm: .pth, .npz, safetensors."""

import io
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mixerkit.checkpoint.tensors import read_tensors
from tests.checkpoint import published
from tests.faults import pickles
from tests.faults.mutations import packed
from tests.faults.ways_in import WEIGHTS, Payload, file, from_the_cache


def pickled() -> list[Payload]:
    """Every way to call a function, in every file that may hold a pickle."""
    found = []
    for kind in pickles.programs(Path("x")):
        for name, wrap in (("new.pth", pickles.pth), ("old.pt", pickles.legacy_pth)):
            make = file(name, lambda trap, k=kind, w=wrap: w(pickles.programs(trap)[k]))
            found.append(Payload(f"{kind} in {name}", make, WEIGHTS))
    for name in ("x.npz", "x.safetensors", "x.bin", "x.pth.tar"):
        make = file(name, lambda trap: pickle.dumps(pickles.ByReduce(trap)))
        found.append(Payload(f"bare pickle as {name}", make, (*WEIGHTS, from_the_cache)))
    return found


def beside(trap: Path) -> bytes:
    """Sound weights, and a payload among the arguments of the training script."""
    buffer = io.BytesIO()
    weights = {"w": torch.zeros(2)}
    torch.save({"state_dict": weights, "args": pickles.ByReduce(trap)}, buffer)
    return buffer.getvalue()


def with_part(name: str) -> Callable[[Path], bytes]:
    """A sound .pth with one more part that is a payload."""
    extra = lambda trap: (name, pickle.dumps(pickles.ByReduce(trap), 2))  # noqa: E731
    return lambda trap: packed([*pickles.parts_of_pth(), extra(trap)])


def before_an_archive(trap: Path) -> bytes:
    """A pickle at the beginning, a sound archive at the end: two readers, two files."""
    payload = pickle.dumps(pickles.ByReduce(trap), 2)
    return pickles.legacy_pth(payload) + packed(pickles.parts_of_pth())


def tar(trap: Path) -> bytes:
    """A true tar archive, as the oldest PyTorch wrote them, with a path out of it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("pickle", "../../outside", "/tmp/outside"):
            content = pickle.dumps(pickles.ByReduce(trap), 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def repeated(start: bytes, step: bytes, end: bytes) -> Callable[[Path], bytes]:
    """A .pth whose program repeats one step as often as a mebibyte allows."""
    return lambda _: pickles.pth(start + step * ((1 << 20) // len(step) - 40) + end)


def many_programs(_: Path) -> bytes:
    parts = [(f"x{i}/data.pkl", b"\x80\x02" + b"]" * (1 << 20) + b".") for i in range(100)]
    return packed(parts, zipfile.ZIP_DEFLATED)


PTH = [
    Payload("payload beside the weights", file("x.pth", beside), WEIGHTS),
    Payload("second data.pkl", file("x.pth", with_part("y/data.pkl")), WEIGHTS),
    Payload("DATA.PKL", file("x.pth", with_part("archive/DATA.PKL")), WEIGHTS),
    Payload("constants.pkl", file("x.pt", with_part("archive/constants.pkl")), WEIGHTS),
    Payload("script", file("x.pt", with_part("archive/code/__torch__.py")), WEIGHTS),
    Payload("pickle before an archive", file("x.pth", before_an_archive), WEIGHTS),
    Payload("tar", file("x.pth.tar", tar), WEIGHTS),
    Payload("doubling", file("x.pth", lambda _: pickles.pth(pickles.doubling(60))), WEIGHTS),
    Payload("doubling, old", file("x.pt", lambda _: pickles.legacy_pth(pickles.doubling(60))),
            WEIGHTS),
    Payload("a million lists", file("x.pth", repeated(b"\x80\x02", b"]", b".")), WEIGHTS),
    Payload("a million copies", file("x.pth", repeated(b"\x80\x02(]", b"2", b"l.")), WEIGHTS),
    Payload("nested lists", file("x.pth", repeated(b"\x80\x02]", b"]a", b".")), WEIGHTS),
    Payload("a hundred programs", file("x.pth", many_programs), WEIGHTS),
]  # fmt: skip


# -- npz ----------------------------------------------------------------------------------


def npz_with(*more: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A sound .npz with more parts."""
    buffer = io.BytesIO()
    np.savez(buffer, **published.linen(published.TINY))
    with zipfile.ZipFile(buffer) as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    return packed([*parts, *more], method)


def npz(name: str, part: Callable[[Path], bytes], **options: int) -> Callable[[Path], bytes]:
    return lambda trap: npz_with((name, part(trap)), **options)


def overlapping(_: Path) -> bytes:
    """Ten thousand names for one part: small on disk, large in all."""
    content = npz_with(("big.npy", pickles.npy_header("<f4", (1 << 18,)) + bytes(1 << 20)),
                       method=zipfile.ZIP_DEFLATED)  # fmt: skip
    end = content.rindex(b"PK\5\6")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    entry = content[content.rindex(b"PK\1\2", 0, end) : end]
    copies = entry * 10_000
    total = (len(copies) // len(entry)).to_bytes(2, "little") * 2
    place = len(copies).to_bytes(4, "little") + start.to_bytes(4, "little")
    return content[:start] + copies + b"PK\5\6\0\0\0\0" + total + place + b"\0\0"


def link_entry(_: Path) -> bytes:
    """A part that says of itself that it is a link out of the archive."""
    buffer = io.BytesIO(npz_with())
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("head/extra.npy")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/hostname")
    return buffer.getvalue()


def encrypted(_: Path) -> bytes:
    return npz_with().replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0")


def big_header(method: int) -> Callable[[Path], bytes]:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}" + b" " * (80 << 20)
    return npz("head/extra.npy", lambda _: pickles.npy_text(text, 2), method=method)


def npy(text: bytes) -> Callable[[Path], bytes]:
    return npz("head/extra.npy", lambda _: pickles.npy_text(text) + bytes(64))


CALL = b"{'descr': __import__('os').mkdir('x'), 'fortran_order': False, 'shape': (1,)}"
DEEP = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 9000 + b")" * 9000 + b"}"
POWER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9,)}"

NPZ = [
    Payload(name, file("x.npz", content), (*WEIGHTS, from_the_cache))
    for name, content in {
        "array of objects": npz("head/extra.npy", pickles.object_array),
        "objects in fields": npz(
            "head/extra.npy", lambda _: pickles.npy_text(
                b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}") + bytes(8)),
        "pickle under an array's name": npz(
            "head/extra.npy", lambda trap: pickle.dumps(pickles.ByReduce(trap))),
        "pickle of no array": npz("x.pkl", lambda trap: pickle.dumps(pickles.ByReduce(trap))),
        "path out of the archive": npz("../../../outside.npy", pickles.object_array),
        "absolute path": npz("/outside.npy", pickles.object_array),
        "link in the archive": link_entry,
        "encrypted": encrypted,
        "zip bomb": npz("head/extra.npy", lambda _: pickles.npy_header("<f4", (1 << 24,))
                        + bytes(1 << 26), method=zipfile.ZIP_DEFLATED),
        "overlapping parts": overlapping,
        "huge promise": npz("head/extra.npy",
                            lambda _: pickles.npy_header("<f4", (1 << 40,)) + bytes(64)),
        "code as header": npy(CALL),
        "brackets as header": npy(DEEP),
        "power as header": npy(POWER),
        "80 MB as header": big_header(zipfile.ZIP_STORED),
    }.items()
]  # fmt: skip


# -- safetensors --------------------------------------------------------------------------


def safetensors(header: bytes, said: int | None = None, data: bytes = bytes(64)) -> Callable:
    length = (len(header) if said is None else said).to_bytes(8, "little")
    return lambda _: length + header + data


ONE = b'"w":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}'
SAFETENSORS = [
    Payload(name, file("x.safetensors", content), (*WEIGHTS, read_tensors))
    for name, content in {
        "header of 2⁶³ bytes": safetensors(b"{}", 1 << 63),
        "header of 99 MB": safetensors(b"{" + ONE + b"}" + b" " * (99 << 20)),
        "shape that wraps round": safetensors(ONE.replace(b"[16]", b"[4611686018427387904,4]")
                                              .join((b"{", b"}"))),
        "brackets": safetensors(b'{"a":' * 100_000),
        "one name twice": safetensors(b"{" + ONE + b"," + ONE + b"}"),
    }.items()
]  # fmt: skip
