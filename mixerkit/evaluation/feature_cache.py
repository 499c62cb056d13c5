"""Features kept on the disk, image by image, under a checksum of all that they depend on, so that a
second probe of the same model looks at no image again.

    CACHE/features/CHECKSUM/features.safetensors and manifest.json

What cannot be read back whole is computed again; what cannot be kept is no reason to stop. Of two
processes that compute features for the same file at the same time one keeps its own.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
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

KIND, FILE = "features", "features.safetensors"
FEATURES, IMAGES = "features", "images"


def features_folder() -> Path:
    """Where features are kept; it may be removed at any time."""
    return cache_folder() / "features"


def kept_or_computed(
    folder: Path,
    key: str,
    images: Sequence[bytes],
    compute: Callable[[np.ndarray], Tensor],
    say: Callable[[str], None],
) -> tuple[Tensor, int]:
    """The features [N, C] of `images` (`names_of` them), and how many of them were kept under `key`
    in `folder`. Those of the others are what `compute` gives for their indices, and are kept for
    the next time. `say` is told of damaged ones and of a full disk."""
    known = _known(folder / key, say)
    missing = np.array([i for i, name in enumerate(images) if name not in known], np.int64)
    if len(missing):
        known |= zip([images[i] for i in missing], compute(missing), strict=True)
        try:
            _keep(folder / key, known)
        except OSError as error:
            say(f"note: the features are not kept: {error.filename}: {error.strerror}.")
    return torch.stack([known[name] for name in images]), len(images) - len(missing)


def _known(path: Path, say: Callable[[str], None]) -> dict[bytes, Tensor]:
    """The features in a folder, each under the name of its image; none where they are damaged."""
    if not os.path.lexists(path):
        return {}
    try:
        return _read(path)
    except UserError as error:
        say(f"note: {without_advice(error)} The features are computed again.")
        return {}


def _read(path: Path) -> dict[bytes, Tensor]:
    verify_folder(path, kind=KIND, must_list=(FILE,))
    found = read_tensors(path / FILE)
    if sorted(found) != sorted((FEATURES, IMAGES)):
        raise UserError(f"{path / FILE} does not hold features.")
    names = [row.tobytes() for row in found[IMAGES].numpy()]
    return dict(zip(names, found[FEATURES], strict=True))


def _keep(path: Path, known: dict[bytes, Tensor]) -> None:
    names = np.stack([np.frombuffer(name, np.uint8) for name in known])
    tensors = {FEATURES: torch.stack(list(known.values())), IMAGES: torch.from_numpy(names)}
    make_folder(path.parent)
    with atomic_folder(path, {"kind": KIND}, replace=True) as temporary:
        write_tensors(temporary / FILE, tensors)


def key_of(weights: str, preprocess: Preprocess, split: str) -> str:
    """The name of the features of a split that is called so: SHA-256 of the model (`checksum_of`
    it), how its images are prepared, and the versions of the packages that compute. Splits of the
    same name may share them: every image has a name of its own."""
    unnamed = to_dict(replace(preprocess, class_names=()))
    described = {"weights": weights, "preprocess": unnamed, "split": split}
    described["versions"] = describe_versions()
    return hashlib.sha256(json_bytes(described)).hexdigest()


def checksum_of(model: MlpMixer) -> str:
    """SHA-256 of a model's configuration, its weights, and the kind of device that it is on."""
    checksum = hashlib.sha256(json_bytes(to_dict(model.config)))
    for name, tensor in model.state_dict().items():
        checksum.update(f"{name} {tensor.dtype} {list(tensor.shape)} {tensor.device.type}".encode())
        checksum.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return checksum.hexdigest()


def names_of(split: ImageSplit) -> list[bytes]:
    """SHA-256 of what tells each image from others: its bytes where it is in memory; path, size and
    time of change of a file, whose reading would take as long as a small model. Labels make no
    difference."""
    if split.images is not None:
        kind = f"{split.images.dtype} {split.images.shape[1:]}".encode()
        return [hashlib.sha256(kind + image.tobytes()).digest() for image in split.images]
    known: dict[Path, str] = {}
    names = []
    for place in split.paths:
        file = _file_of(place)
        if file not in known:
            known[file] = _state(file)
        names.append(hashlib.sha256(os.fsencode(f"{place}\0{known[file]}")).digest())
    return names


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
