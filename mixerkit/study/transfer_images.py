"""By what a folder of the transfer protocol knows the images that it was begun with again.

    images.json    for each task and split: how many images, names, labels, sizes, some contents

Figures of other images do not belong into the same table, so that a folder is for the same ones.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.checkpoint.documents import json_bytes, read_json
from mixerkit.checkpoint.files import make_folder, write_atomic
from mixerkit.checkpoint.lock import Lock
from mixerkit.data.files import Place
from mixerkit.data.readers import nothing
from mixerkit.data.sources import ImageSplit, Splits
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Data
from mixerkit.study.transfer_broken import MOST_OPENED, kinds, sample
from mixerkit.training.images import contents_of

FILE = "images.json"
NAMES_SHOWN = 3
PATIENCE = 60.0
"""Seconds to wait for others that note their images, where many are started at once."""
Known = dict[str, dict[str, Any]]
"""What is known of each split of a task."""


def known_by(splits: Splits, data: Data) -> Known:
    """Numbers, checksums of names and labels, sizes of up to `MOST_OPENED` files of each split by
    their names, and the beginnings of some contents' SHA-256."""
    return {kind: _known(split, data) for kind, split in kinds(splits)}


def _known(split: ImageSplit, data: Data) -> dict[str, Any]:
    labels = hashlib.sha256("\0".join(split.class_names).encode())
    labels.update(np.ascontiguousarray(split.labels, dtype="<i8").tobytes())
    names, sizes = hashlib.sha256(), {}
    if split.images is None:
        start = _folder_of_all(split)
        for place in split.paths:
            names.update(os.fsencode(str(place)[start:]) + b"\0")
        chosen = [split.paths[index] for index in sample(split, MOST_OPENED).tolist()]
        sizes = {_text(place)[start:]: _size(place) for place in chosen}
    return {
        "images": len(split),
        "names": names.hexdigest()[:12],
        "labels": labels.hexdigest()[:12],
        "sizes": sizes,
        "contents": contents_of(Splits(split, None, None, ""), data, nothing),
    }


def _folder_of_all(split: ImageSplit) -> int:
    """Length of what all names begin with: where the folder lies makes no difference."""
    folders = [Path(str(split.paths[place])).parent for place in (0, -1)]
    return len(os.path.commonpath(folders)) + 1


def _text(place: Place) -> str:
    """As it can stand in JSON."""
    return str(place).encode(errors="backslashreplace").decode()


def _size(place: Place) -> int:
    """Bytes; 0 where that is not known."""
    try:
        return place.stat().st_size if isinstance(place, Path) else place.size
    except OSError:
        return 0


def check_images(
    folder: Path,
    now: Mapping[str, Known],
    titles: Mapping[str, str],
    tried: Callable[[], Collection[str]],
) -> None:
    """`UserError` where trials of any of the tasks were begun with other images; the images of
    tasks that have no trial yet are noted. `now` and `titles`: by task; `tried`: which have trials
    by now. Where all is noted, nothing is written."""
    file = folder / FILE
    if not _new(folder, _noted(file), now, titles, tried()):
        return
    make_folder(folder)
    lock = Lock(folder, PATIENCE)
    try:
        before = _noted(file)  # others may have come first
        if new := _new(folder, before, now, titles, tried()):
            write_atomic(file, json_bytes(before | new))
    finally:
        lock.release()


def _noted(file: Path) -> dict[str, Known]:
    return read_json(file) if file.exists() else {}


def _new(
    folder: Path,
    before: Mapping[str, Known],
    now: Mapping[str, Known],
    titles: Mapping[str, str],
    tried: Collection[str],
) -> dict[str, Known]:
    """Those of `now` that are to be noted; `UserError` where that of a task with trials is another
    than what is noted."""
    said = [
        f"{titles[task]}, {kind} images: {what}"
        for task in now
        if task in before and task in tried
        for kind, what in _differences(before[task], now[task])
    ]
    if said:
        raise UserError(
            f"The trials in {folder} were begun with other images than are here now, and figures "
            f"of both do not belong together:\n"
            + "\n".join(said)
            + "\nPut the images back as they were, or begin again in another --folder."
        )
    return {task: known for task, known in now.items() if before.get(task) != known}


def _differences(before: Known, now: Known) -> Iterator[tuple[str, str]]:
    """(split, in what it differs) for each that does."""
    for kind in dict.fromkeys([*before, *now]):
        if kind not in before or kind not in now:
            yield kind, "none now" if kind in before else "none there"
        elif what := _difference(before[kind], now[kind]):
            yield kind, what


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """In what a split differs; empty where it is the same."""
    there, here = before["sizes"], now["sizes"]
    if (before["images"], before["names"]) != (now["images"], now["names"]):
        counts = f"{before['images']:,} there and {now['images']:,} now"
        if before["images"] == now["images"]:
            counts = "other names"
        if max(before["images"], now["images"]) > MOST_OPENED:
            return counts  # not all names are known
        only = (
            ("only there", there.keys() - here.keys()),
            ("only now", here.keys() - there.keys()),
        )
        return "; ".join([counts, *(f"{what}: {_some(names)}" for what, names in only if names)])
    if before["labels"] != now["labels"]:
        return "other classes, or another class of some image"
    sizes = [name for name in there if name in here and there[name] != here[name]]
    if sizes:
        first = f"{sizes[0]} has {there[sizes[0]]:,} bytes there and {here[sizes[0]]:,} now"
        return first + (f", and {len(sizes) - 1:,} more" if sizes[1:] else "")
    pairs = zip(before["contents"], now["contents"], strict=False)
    count = sum(one != other for one, other in pairs)
    return f"{count:,} of {len(now['contents']):,} compared have another content" if count else ""


def _some(names: set[str]) -> str:
    first = sorted(names)[:NAMES_SHOWN]
    return ", ".join(first) + (", …" if len(names) > NAMES_SHOWN else "")
