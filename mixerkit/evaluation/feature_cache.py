"""Features kept on the disk under a checksum of all that they depend on, so that a second probe of
the same model and images computes none.

    CACHE/features/CHECKSUM/features.safetensors and manifest.json

What cannot be read back whole is computed again; what cannot be kept is no reason to stop.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixerkit.checkpoint.documents import json_bytes
from mixerkit.checkpoint.files import atomic_folder, make_folder
from mixerkit.checkpoint.manifest import verify_folder, without_advice
from mixerkit.checkpoint.tensors import read_tensors, write_tensors
from mixerkit.data.files import Member, Place
from mixerkit.data.parquet import Row
from mixerkit.data.splits import ImageSplit
from mixerkit.download import cache_folder
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import describe_versions
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import to_dict

KIND, FILE, NAME = "features", "features.safetensors", "features"


def features_folder() -> Path:
    """Where features are kept; it may be removed at any time."""
    return cache_folder() / "features"


def kept_or_computed(
    folder: Path, key: str, compute: Callable[[], Tensor], say: Callable[[str], None]
) -> tuple[Tensor, bool]:
    """The features under `key` in `folder`, and whether they were kept there; else what `compute`
    gives, which is kept for the next time. `say` is told of damaged ones and of a full disk."""
    path = folder / key
    if os.path.lexists(path):
        try:
            return _read(path), True
        except UserError as error:
            say(f"note: {without_advice(error)} The features are computed again.")
    features_NC = compute()
    try:
        _keep(path, features_NC)
    except OSError as error:
        say(f"note: the features are not kept: {error.filename}: {error.strerror}.")
    return features_NC, False


def _read(path: Path) -> Tensor:
    verify_folder(path, kind=KIND, must_list=(FILE,))
    found = read_tensors(path / FILE)
    if list(found) != [NAME]:
        raise UserError(f"{path / FILE} does not hold features.")
    return found[NAME]


def _keep(path: Path, features_NC: Tensor) -> None:
    make_folder(path.parent)
    with atomic_folder(path, {"kind": KIND}, replace=True) as temporary:
        write_tensors(temporary / FILE, {NAME: features_NC})


def key_of(weights: str, preprocess: Preprocess, split: ImageSplit) -> str:
    """The name of a split's features: SHA-256 of the model (`checksum_of` it), how its images are
    prepared, which images they are, and the versions of the packages that compute."""
    unnamed = to_dict(replace(preprocess, class_names=()))
    described = {"weights": weights, "preprocess": unnamed, "versions": describe_versions()}
    checksum = hashlib.sha256(json_bytes(described))
    for part in _images(split):
        checksum.update(part)
    return checksum.hexdigest()


def checksum_of(model: MlpMixer) -> str:
    """SHA-256 of a model's configuration, its weights, and the kind of device that it is on."""
    checksum = hashlib.sha256(json_bytes(to_dict(model.config)))
    for name, tensor in model.state_dict().items():
        checksum.update(f"{name} {tensor.dtype} {list(tensor.shape)} {tensor.device.type}".encode())
        checksum.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return checksum.hexdigest()


def _images(split: ImageSplit) -> Iterator[bytes | memoryview]:
    """What tells these images from others: their bytes where they are in memory; path, size and
    time of change of files, whose reading would take as long as a small model. Labels make no
    difference."""
    if split.images is not None:
        yield f"{split.images.dtype} {split.images.shape}".encode()
        yield np.ascontiguousarray(split.images).data
        return
    known: dict[Path, str] = {}
    for place in split.paths:
        file = _file_of(place)
        if file not in known:
            known[file] = _state(file)
        yield os.fsencode(f"{place}\0{known[file]}\0")


def _file_of(place: Place) -> Path:
    """The file that an image is, or is inside of."""
    if isinstance(place, Member):
        return place.archive
    if isinstance(place, Row):
        return place.file
    assert isinstance(place, Path), f"a new kind of place: {place}"
    return place


def _state(file: Path) -> str:
    """Whole path, size and time of the last change; what is not there gets a name of its own, and
    is an error when it is read."""
    try:
        found = file.stat()
    except OSError as error:
        return f"{file.absolute()} {error.strerror}"
    return f"{file.absolute()} {found.st_size} {found.st_mtime_ns}"
