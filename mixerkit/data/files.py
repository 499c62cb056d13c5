"""Where the bytes of an image are: in a file of its own, or in a part of a larger one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mixerkit.errors import UserError


class Inside(Protocol):
    """An image inside a larger file, which its text names. `size`: bytes, 0 where that is not known
    before they are read."""

    @property
    def size(self) -> int: ...

    def content(self) -> bytes: ...


@dataclass(frozen=True)
class Member:
    """`size` bytes from `offset` on in an archive, where they are called `name`."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def content(self) -> bytes:
        """The bytes, read now; errors as of `open`, `UserError` where the archive ends early."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) < self.size:
            raise UserError(
                f"{self.archive} is shorter than it was when its images were listed: it ends "
                f"inside {self.name}. Restore it from a copy."
            )
        return found


Place = Path | Inside
