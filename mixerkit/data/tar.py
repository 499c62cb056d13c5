"""Images in tar archives, read at random: where the bytes of each one are, found out once.

Two forms are known. WebDataset's: files that differ only in their ending are one sample, an image
and its label (`00042.jpg` and `00042.cls`, or a `label` in `00042.json`). Folders: each image is in
the folder of its class, or the whole archive is one class (ImageNet-21k comes so).
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from mixerkit.data.decode import EXTENSIONS
from mixerkit.data.files import Member
from mixerkit.errors import UserError

BLOCK = 512
LABEL_ENDINGS = (".cls", ".cls.txt", ".json")
LABEL_KEYS = ("label", "cls", "class")
MOST_OF_A_LABEL = 2**20
"""Bytes of a file that holds a label."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Where the N images of an archive are.

    `names`: UTF-8, bytes [N]. `offsets`, `sizes`: in bytes, int64 [N]. `classes`: what says the
    class of each, a number or the name of a folder, UTF-8, bytes [N]; empty where nothing does.
    `left_out`: how many files are neither an image nor its label.
    """

    path: Path
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Member:
        name = os.fsdecode(self.names[index])
        return Member(self.path, name, int(self.offsets[index]), int(self.sizes[index]))


@dataclass
class _Sample:
    """Files of one archive that belong together."""

    key: str
    image: tuple[str, int, int] | None = None
    label: str | None = None


def scan(path: Path) -> Shard:
    """Read the archive's headers, from first to last. `UserError` when it is no tar archive, is
    compressed, or ends before it should: nothing is left out in silence."""
    try:
        with path.open("rb") as file:
            samples, left_out = _samples(path, file)
    except tarfile.TarError as error:
        raise UserError(f"{path} is no whole tar archive: {error}. {_compressed(path)}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    found = [sample for sample in samples if sample.image]
    labelled = [sample for sample in found if sample.label is not None]
    if labelled and len(labelled) < len(found):
        lacking = next(sample.key for sample in found if sample.label is None)
        raise UserError(
            f"{path}: {len(found) - len(labelled)} of {len(found)} images have no label, the "
            f"first is {lacking}: expected a {' or '.join(LABEL_ENDINGS)} beside each, or no such "
            f"file at all."
        )
    images = [sample.image for sample in found if sample.image]
    classes = [
        PurePosixPath(sample.key).parent.name if sample.label is None else sample.label
        for sample in found
    ]
    return Shard(
        path,
        _texts([name for name, _, _ in images]),
        np.array([offset for _, offset, _ in images], np.int64),
        np.array([size for _, _, size in images], np.int64),
        _texts(classes),
        left_out,
    )


def _texts(texts: list[str]) -> np.ndarray:
    return np.array([os.fsencode(text) for text in texts], np.bytes_)


def _samples(path: Path, file: IO[bytes]) -> tuple[list[_Sample], int]:
    """Neighbours in the archive with the same key are one sample."""
    samples: list[_Sample] = []
    left_out = 0
    for member in _members(path, file):
        key, ending = key_and_ending(member.name)
        if not samples or samples[-1].key != key:
            samples.append(_Sample(key))
        sample = samples[-1]
        if ending in EXTENSIONS and sample.image is None:
            sample.image = (member.name, member.offset_data, member.size)
        elif ending in LABEL_ENDINGS and sample.label is None:
            sample.label = _label(f"{path}: {member.name}", _bytes_of(path, file, member), ending)
        else:
            left_out += 1
    return samples, left_out


def key_and_ending(name: str) -> tuple[str, str]:
    """As WebDataset divides them: the ending begins at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()


def _members(path: Path, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive; what ends without an end, or early, is refused."""
    size = path.stat().st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        end = 0
        while member := archive.next():
            archive.members = []  # type: ignore[attr-defined]  # or all of them stay in memory
            end = archive.offset  # type: ignore[attr-defined]
            if end > size + BLOCK - 1 or member.offset_data + member.size > size:
                raise UserError(f"{path} is cut short: it ends inside {member.name}.")
            if member.isreg() and not member.sparse:  # type: ignore[attr-defined]
                here = file.tell()
                yield member
                file.seek(here)
    file.seek(end)
    after = file.read(BLOCK)
    if after.strip(b"\0") or len(after) < BLOCK:
        what = "holds something that is no header" if after.strip(b"\0") else "is cut short"
        raise UserError(f"{path} {what} at byte {end:,}: it is damaged there.")


def _bytes_of(path: Path, file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.size > MOST_OF_A_LABEL:
        raise UserError(f"{path}: {member.name} should be a label and has {member.size:,} bytes.")
    file.seek(member.offset_data)
    return file.read(member.size)


def _label(place: str, content: bytes, ending: str) -> str:
    """The class that a label file gives, as text."""
    try:
        text = content.decode()
        found: Any = _from_json(text) if ending == ".json" else text.strip()
        if type(found) not in (int, str) or found == "":
            raise ValueError(f"found {found!r:.80}")
    except (ValueError, RecursionError) as error:
        keys = f"an object with one of {', '.join(LABEL_KEYS)}"
        expected = keys if ending == ".json" else "the number or the name of a class"
        raise UserError(f"{place}: expected {expected} ({error}).") from error
    return str(found)


def _from_json(text: str) -> Any:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"found {type(content).__name__}")
    found = [content[key] for key in LABEL_KEYS if key in content]
    if not found:
        raise ValueError(f"found {', '.join(map(str, content)) or 'nothing'}"[:80])
    return found[0]


def _compressed(path: Path) -> str:
    """What to do about an archive that would have to be read from its start each time."""
    with path.open("rb") as file:
        head = file.read(6)
    kinds = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"(\xb5/\xfd": "unzstd"}
    tool = next((tool for mark, tool in kinds.items() if head.startswith(mark)), "")
    return f"It is compressed; images are, too, so unpack it once with `{tool}`." if tool else ""
