"""Archives and Parquet files at an address as a source: each is fetched once, checked and kept.

    https://host/train-{0000..0255}.tar            numbers, with as many zeros as are written
    https://host/{train,validation}-00.parquet     words

What is kept is in the cache folder, so that the same files are read at random in every epoch, and a
run that goes on has the very images that it began with.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixerkit.data import parquet, shards
from mixerkit.data.splits import Splits
from mixerkit.data.tar import scan
from mixerkit.download import Expected, cache_folder, fetch
from mixerkit.errors import UserError

SCHEMES = ("https://", "http://")
MOST = 2**40
"""Bytes of one file."""
MOST_FILES = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def is_address(source: str) -> bool:
    """Whether a data source is to be fetched."""
    return source.startswith(SCHEMES)


def open_address(source: str) -> Splits:
    """The splits of all files that `source` names, fetched where they are not kept yet."""
    addresses = list(expanded(source))
    endings = {Path(name_of(address)).suffix for address in addresses}
    if not endings <= {shards.ENDING} and not endings <= {parquet.ENDING}:
        raise UserError(
            f"{source}: expected addresses of {shards.ENDING} or of {parquet.ENDING} files, found "
            f"{' and '.join(sorted(ending or 'none' for ending in endings))}."
        )
    folder = kept_in(source)
    names = [name_of(address) for address in addresses]
    if len(set(names)) < len(names):
        raise UserError(f"{source}: two of its {len(names)} files have the same name.")
    if endings == {parquet.ENDING}:
        parquet.check_installed()
    for address, name in zip(addresses, names, strict=True):
        fetch(address, folder / name, Expected(most=MOST), verify=check_whole)
    opened = shards.open_shards if endings == {shards.ENDING} else parquet.open_parquet
    return opened(folder)


def check_whole(path: Path) -> None:
    """`UserError` for an archive or a Parquet file that is cut short, or damaged where it says what
    is where; `path` may have another ending while it arrives."""
    if path.name.removesuffix(".part").endswith(parquet.ENDING):
        parquet.check(path)
    else:
        scan(path)


def kept_in(source: str) -> Path:
    """The folder in the cache that holds the files of `source`, and no others."""
    return cache_folder() / "remote" / hashlib.sha256(source.encode()).hexdigest()[:16]


def name_of(address: str) -> str:
    """The last part of an address's path."""
    return unquote(urlsplit(address).path).rpartition("/")[2]


def expanded(source: str) -> Iterator[str]:
    """The addresses that a text with braces stands for, in their order."""
    count = 0
    for count, address in enumerate(_expanded(source), 1):
        if count > MOST_FILES:
            raise UserError(f"{source} stands for more than {MOST_FILES:,} files.")
        yield address
    if not count:
        raise UserError(f"{source} stands for no file: expected numbers such as {{000..127}}.")


def _expanded(text: str) -> Iterator[str]:
    braces = BRACES.search(text)
    if braces is None:
        yield text
        return
    for choice in _choices(braces[1]):
        yield from _expanded(f"{text[: braces.start()]}{choice}{text[braces.end() :]}")


def _choices(inside: str) -> Iterator[str]:
    numbers = NUMBERS.fullmatch(inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = numbers[1], numbers[2]
    for number in range(int(first), int(last) + 1):
        yield f"{number:0{len(first)}d}"
