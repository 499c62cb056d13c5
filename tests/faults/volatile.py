"""A disk that forgets what was not synced: what happens to it, and what a loss of power leaves.

`Recorder` watches a folder while real code works in it. Before and after every call that syncs or
changes names it compares the whole tree with the one before, so that writes by any library are
seen too. `Disk` replays the beginning of such a record under a strict reading of POSIX: contents
last when their file was synced, a name lasts when its folder was, and each may last without the
other. Whatever is not yet lasting may be there, be missing, or, for contents, be cut or zeroed.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

ROOT = 0
HOOKED = (
    *("fsync", "fdatasync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir"),
    *("truncate", "ftruncate", "link", "symlink"),
)
PAGES = (1, 16, 512, 4096)


@dataclass(frozen=True)
class Names:
    """In one step, names of a folder come to stand for other nodes, or for nothing."""

    folder: int
    changes: dict[str, int | None]


@dataclass(frozen=True)
class Content:
    """A file has other bytes."""

    file: int
    content: bytes


@dataclass(frozen=True)
class Synced:
    """A file's contents, or the names in a folder, are on the disk."""

    node: int


@dataclass(frozen=True)
class Mark:
    """The code under test has come so far; `what` is the scenario's own word for it."""

    what: Any


Event = Names | Content | Synced | Mark


@dataclass
class Recorder:
    """What happens below `root`, which exists and is taken to be on the disk."""

    root: Path
    events: list[Event] = field(default_factory=list)
    folders: set[int] = field(default_factory=set)
    """The nodes that are folders; all others are files."""
    _nodes: dict[int, int] = field(default_factory=dict)  # inode → node
    _names: dict[int, dict[str, int]] = field(default_factory=dict)
    _contents: dict[int, bytes] = field(default_factory=dict)
    _count: int = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record what is done inside the block, by this process."""
        self._nodes[self.root.stat().st_ino] = ROOT
        with ExitStack() as stack:
            for name in HOOKED:
                hooked = self._hooked(name, getattr(os, name))
                stack.enter_context(mock.patch.object(os, name, hooked))
            yield
            self._look()

    def mark(self, what: Any) -> None:
        """Note that everything up to here has been done."""
        self._look()
        self.events.append(Mark(what))

    def _hooked(self, name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self._look()
            result = original(*arguments, **options)
            if name in ("fsync", "fdatasync"):
                node = self._nodes.get(os.fstat(arguments[0]).st_ino)
                if node is not None:
                    self.events.append(Synced(node))
            else:
                self._look()
            return result

        return call

    def _look(self) -> None:
        """Record how the tree differs from when it was last looked at."""
        live: dict[int, int] = {}
        names: dict[int, dict[str, int]] = {}
        contents: dict[int, bytes] = {}
        new = self._walk(self.root, live, names, contents)
        self._nodes, self.folders = live, self.folders | names.keys()
        for node, inner in names.items():
            self._record_names(node, self._names.get(node, {}), inner, new)
        for node, content in contents.items():
            if self._contents.get(node, b"") != content:
                self.events.append(Content(node, content))
        self._names, self._contents = names, contents

    def _walk(self, path: Path, live: dict, names: dict, contents: dict) -> set[int]:
        """Fill in what is below `path`; returns the nodes that were not there before."""
        new, inode = set(), path.stat().st_ino
        if inode not in self._nodes:
            self._count += 1
            new.add(self._count)
        node = live[inode] = self._nodes.get(inode, self._count)
        if path.is_dir():
            names[node] = {}
            for inner in sorted(path.iterdir()):
                new |= self._walk(inner, live, names, contents)
                names[node][inner.name] = live[inner.stat().st_ino]
        else:
            contents[node] = path.read_bytes()
        return new

    def _record_names(
        self, folder: int, old: dict[str, int], names: dict[str, int], new: set[int]
    ) -> None:
        """New nodes got their names one by one; a rename or a swap is a single step."""
        changes: dict[str, int | None] = {name: None for name in old if name not in names}
        changes |= {name: node for name, node in names.items() if old.get(name) != node}
        for name, node in list(changes.items()):
            if node in new and name not in old:
                self.events.append(Names(folder, {name: changes.pop(name)}))
        if changes:
            self.events.append(Names(folder, changes))


class Disk:
    """The beginning of a record as a disk sees it: what lasts, and what is still on its way."""

    def __init__(self, events: list[Event], folders: set[int]) -> None:
        self.folders = folders
        self.names: dict[int, dict[str, int]] = {}
        self.contents: dict[int, bytes] = {}
        self.names_waiting: dict[int, list[dict[str, int | None]]] = {}
        self.contents_waiting: dict[int, list[bytes]] = {}
        for event in events:
            if isinstance(event, Names):
                self.names_waiting.setdefault(event.folder, []).append(event.changes)
            elif isinstance(event, Content):
                self.contents_waiting.setdefault(event.file, []).append(event.content)
            elif isinstance(event, Synced):
                self._sync(event.node)

    def _sync(self, node: int) -> None:
        for changes in self.names_waiting.pop(node, []):
            _apply(self.names.setdefault(node, {}), changes)
        for content in self.contents_waiting.pop(node, []):
            self.contents[node] = content

    def after_power_loss(self, path: Path, random: Random) -> None:
        """Put at `path`, which does not exist, what the disk may hold when the power is back."""
        self._put(ROOT, path, random, random.choice(("all", "none", "first", "any", "any")))

    def _put(self, node: int, path: Path, random: Random, order: str) -> None:
        if node not in self.folders:
            path.write_bytes(self._content(node, random))
            return
        path.mkdir()
        names = dict(self.names.get(node, {}))
        for changes in kept(self.names_waiting.get(node, []), random, order):
            _apply(names, changes)
        for name, inner in names.items():
            self._put(inner, path / name, random, order)

    def _content(self, node: int, random: Random) -> bytes:
        lasting = self.contents.get(node, b"")
        written = random.choice([lasting, *self.contents_waiting.get(node, [])])
        return written if written == lasting else torn(lasting, written, random)


def _apply(names: dict[str, int], changes: dict[str, int | None]) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def kept(waiting: list[Any], random: Random, order: str) -> list[Any]:
    """Which of the changes that were on their way arrived: the first ones, or any."""
    if order == "first":
        return waiting[: random.randint(0, len(waiting))]
    if order == "any":
        return [one for one in waiting if random.random() < 0.5]
    return waiting if order == "all" else []


def torn(lasting: bytes, written: bytes, random: Random) -> bytes:
    """`written` as it may look before it was synced: whole, cut, or zeros for some of its pages."""
    pairs = enumerate(zip(lasting, written, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(lasting), len(written)))
    way = random.choice(("whole", "cut", "zeros", "all zeros"))
    if way == "cut":
        return written[: random.randint(same, len(written))]
    if way == "all zeros":
        return written[:same] + bytes(len(written) - same)
    result, page = bytearray(written), random.choice(PAGES)
    if way == "zeros":
        for start in range(same - same % page, len(written), page):
            if random.random() < 0.5:
                first, end = max(start, same), min(start + page, len(written))
                result[first:end] = bytes(end - first)
    return bytes(result)
