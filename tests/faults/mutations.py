"""Files changed in ways that readers do not expect: as bytes, as JSON, as archives."""

import io
import json
import math
import struct
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (-1, 0, 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30, 1.5, 1e308, -0.0)
TEXTS = ("", "x" * 3000, "\0", "../../outside", "/etc/hostname", "é\u2028\U0001f600", "nan", "F32")
VALUES = (None, True, [], {}, [[]], {"": {}}, *NUMBERS, *TEXTS)
RAW = (b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b'"\xff"', b"[" * 3000, b"{" * 99)
"""JSON, and nearly JSON, that no writer of ours makes."""
PLACE = "@@@place@@@"


def as_bytes(content: bytes, random: Random) -> bytes:
    """A few changes without any regard to what the bytes mean."""
    for _ in range(random.choice((1, 1, 2, 5))):
        content = random.choice(BYTE_CHANGES)(content, random)
    return content


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(content))
    return start, min(len(content), start + random.choice((1, 1, 2, 8, 64, 1000)))


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 4)) if content else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + random.randbytes(end - start) + content[end:]


def _delete(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[start:end] * random.choice((2, 3, 50)) + content[end:]


def _insert(content: bytes, random: Random) -> bytes:
    start, _ = _span(content, random)
    return content[:start] + random.choice((*RAW, b"\0", b"\n", b"\xff" * 8)) + content[start:]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randint(0, len(content))]


def _word(content: bytes, random: Random) -> bytes:
    """Four or eight bytes that a reader may take for a length."""
    start, _ = _span(content, random)
    kind = random.choice(("<I", "<Q", ">I"))
    word = struct.pack(kind, random.choice((0, 1, 255, 2**16, 2**31, 2**32 - 1)))
    return content[:start] + word + content[start + len(word) :]


BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip, _overwrite, _delete, _repeat, _insert, _cut, _word,
)  # fmt: skip


def as_json(content: bytes, random: Random) -> bytes:
    """Other values, keys and nesting; now and then what is not quite JSON."""
    if random.random() < 0.1:
        return as_bytes(content, random)
    tree: Any = json.loads(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        tree = _change(tree, random)
    text = json.dumps(tree, indent=random.choice((None, 2)), ensure_ascii=random.random() < 0.5)
    raw = random.choice((*RAW, b"[" * 50 + b"]" * 50, b"[" * 700 + b"]" * 700))
    return text.encode("utf-8", "surrogatepass").replace(json.dumps(PLACE).encode(), raw)


def as_rows(content: bytes, random: Random) -> bytes:
    """One line of many changed as JSON, or all as bytes."""
    if random.random() < 0.2:
        return as_bytes(content, random)
    lines = content.splitlines()
    number = random.randrange(len(lines))
    lines[number] = as_json(lines[number], random).replace(b"\n", b"")
    return b"\n".join([*lines, b""])


def _change(tree: Any, random: Random) -> Any:
    """`tree` with one change somewhere in it."""
    inner = list(tree) if isinstance(tree, dict) else range(len(tree)) if _is_list(tree) else ()
    if not inner or random.random() < 0.1:
        return deepcopy(random.choice((*VALUES, PLACE, PLACE)))
    key = random.choice(list(inner))
    if isinstance(tree, dict) and random.random() < 0.25:
        value = tree.pop(key)
        if random.random() < 0.6:
            tree[random.choice((*TEXTS, str(key) + "x", str(key).upper()))] = value
        return tree
    if random.random() < 0.1 and _is_list(tree):
        tree += [deepcopy(random.choice(VALUES))] * random.choice((1, 1, 5000))
        return tree
    tree[key] = _change(tree[key], random)
    return tree


def _is_list(tree: Any) -> bool:
    return isinstance(tree, list)


# -- safetensors --------------------------------------------------------------------------


def as_safetensors(content: bytes, random: Random) -> bytes:
    """A changed header of the right length before the same numbers, or changed bytes."""
    if random.random() < 0.2:
        return as_bytes(content, random)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    if random.random() < 0.25:
        return _other_tensors(header, random)
    header = _odd_header(header, random) if random.random() < 0.3 else as_json(header, random)
    said = len(header) if random.random() < 0.95 else random.choice((0, 2**31, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + header + data


WIDTHS = {
    **{"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U16": 2},
    **{"BOOL": 1, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1},
}
"""Bytes of safetensors' numbers."""


def _other_tensors(header: bytes, random: Random) -> bytes:
    """A file in good order of tensors of any kind, some under the names of `header`."""
    names = [name for name in json.loads(header) if name != "__metadata__"]
    tree, end = {}, 0
    for name in random.sample(names, random.randint(1, len(names))):
        kind = random.choice([*WIDTHS, "F32", "F32", "F32"])
        shape = [random.choice((0, 1, 2, 3, 6, 7)) for _ in range(random.choice((0, 1, 2, 4, 9)))]
        start, end = end, end + math.prod(shape) * WIDTHS[kind]
        called = random.choice((name, name, name, name + "_", random.choice(TEXTS) + name))
        tree[called] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(tree).encode()
    return struct.pack("<Q", len(text)) + text + random.randbytes(end)


def _odd_header(header: bytes, random: Random) -> bytes:
    """Headers made to harm: what each is for stands beside it."""
    tree = json.loads(header)
    tree.pop("__metadata__", None)
    name = random.choice(list(tree))
    entry = tree[name]
    start, end = entry["data_offsets"]
    one = json.dumps(entry)
    changes: dict[str, dict[str, Any]] = {
        "overlapping": {"data_offsets": [max(0, start - 4), end]},
        "negative": {"data_offsets": [-4, end]},
        "backwards": {"data_offsets": [end, start]},
        "beyond": {"data_offsets": [start, 2**40]},
        "huge": {"shape": [2**40, 2**40]},
        "wraps round": {"shape": [2**62, 4]},
        "nothing of much": {"shape": [0, 2**64 - 1], "data_offsets": [start, start]},
        "many axes": {"shape": [1] * 4000 + entry["shape"]},
        "other numbers": {"dtype": random.choice(("F8_E5M2", "F4", "C64", "BOOL", "U16", "I64"))},
        "unknown numbers": {"dtype": "F33"},
    }
    kind = random.choice([*changes, "twice", "deep", "text", "a million blocks"])
    if kind == "twice":
        return header[:-1].rstrip() + f', "{name}": {one}}}'.encode()
    if kind == "deep":
        return b'{"a":' * 4000 + b"1" + b"}" * 4000
    if kind == "text":
        return header.replace(name.encode(), random.choice((b"\xff\xfe", b"\\ud800", b"\\u0000")))
    if kind == "a million blocks":
        tree[f"blocks.{random.choice((99, 99999, 10**9))}.norm1.bias"] = tree.pop(name)
    else:
        tree[name] = entry | changes[kind]
    return json.dumps(tree).encode()


# -- archives -----------------------------------------------------------------------------


def as_archive(content: bytes, random: Random) -> bytes:
    """A zip whose parts or their names are changed, with right checksums; or changed bytes."""
    if random.random() < 0.3:
        return as_bytes(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    at = random.randrange(len(parts))
    name, part = parts[at]
    kind = random.choice(("start", "start", "bytes", "drop", "twice", "name", "nested"))
    if kind == "start":  # the header of an array, or the program of a .pth
        parts[at] = (name, as_bytes(part[:128], random) + part[128:])
    elif kind == "bytes":
        parts[at] = (name, as_bytes(part, random))
    elif kind == "drop":
        del parts[at]
    elif kind == "twice":
        parts.append((name, part))
    elif kind == "name":
        parts[at] = (random.choice((*TEXTS[3:], name + "x", "../" + name)), part)
    else:
        parts[at] = (name, content)
    return packed(parts, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def packed(parts: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of parts, whose names may be there twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # zipfile's own, about a name given twice
        for name, part in parts:
            entry = zipfile.ZipInfo(name.replace("\0", "_"))
            entry.compress_type = method
            with archive.open(entry, "w") as file:
                file.write(part)
    return buffer.getvalue()
