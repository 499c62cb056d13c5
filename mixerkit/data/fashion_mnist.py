"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 70 000 photographs of 28 × 28 pixels.

Debian compressed the files anew, so it is the decompressed content that is checked.
"""

import os
from pathlib import Path

import numpy as np

from mixerkit.data.download import fetch_from_debian, fetch_from_mirror
from mixerkit.data.idx import read_idx
from mixerkit.data.splits import ImageSplit, Splits
from mixerkit.download import cache_folder, is_offline
from mixerkit.errors import UserError

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# File name without .gz → MD5 of the decompressed file.
FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def open_fashion_mnist(roots: tuple[Path, ...]) -> Splits:
    """Training (60 000) and test split (10 000), from the first place that has the files.

    The places: `roots`, Debian's folder, the user's cache, the official mirror, Debian's
    package without installing it. Only in `roots` may the content differ from the official
    one, and `origin` says so. MIXERKIT_OFFLINE leaves the last two out.
    """
    tried: list[str] = []
    for folder in [place for root in roots for place in (root / "fashion-mnist", root)]:
        if _complete(folder):
            return _load(folder, str(folder), official=False)
    tried += [f"{root}: the four files are not there" for root in roots]
    for folder in (SYSTEM_FOLDER, cache_folder() / "fashion-mnist"):
        try:
            if _complete(folder):
                return _load(folder, str(folder), official=True)
            tried.append(f"{folder}: the four files are not there")
        except UserError as error:
            tried.append(str(error))
    return _download(tried)


def _download(tried: list[str]) -> Splits:
    if is_offline():
        tried.append("the network: left out, because MIXERKIT_OFFLINE is set")
    else:
        names = [f"{name}.gz" for name in FILES]
        for fetch, source, label in (
            (fetch_from_mirror, MIRROR, MIRROR),
            (fetch_from_debian, DEBIAN_PACKAGE, f"Debian's package {DEBIAN_PACKAGE}"),
        ):
            try:
                with fetch(source, names) as folder:
                    splits = _load(folder, f"downloaded from {label}", official=True)
                    return _keep(splits, folder, names)
            except UserError as error:
                tried.append(str(error))
    places = "".join(f"\n  - {line}" for line in tried)
    raise UserError(
        f"Fashion-MNIST was not found. Tried:{places}\n"
        f"Put {', '.join(f'{name}.gz' for name in FILES)} in a folder and name it with "
        f"data.root, or install Debian's package {DEBIAN_PACKAGE}."
    )


def _keep(splits: Splits, folder: Path, names: list[str]) -> Splits:
    """Copy the checked files into the user's cache; each appears there whole or not at all."""
    cache = cache_folder() / "fashion-mnist"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name in names:
            part = cache / f".{name}.{os.getpid()}"
            try:
                part.write_bytes((folder / name).read_bytes())
                part.replace(cache / name)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        note = f"could not be kept in {cache}: {error.strerror}"
    else:
        note = f"kept in {cache}"
    return Splits(splits.train, splits.validation, splits.test, f"{splits.origin}; {note}")


def _file(folder: Path, name: str) -> Path | None:
    """The file as it is or gzipped."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _complete(folder: Path) -> bool:
    """Whether all four files are there; some without the others are an error."""
    missing = [name for name in FILES if _file(folder, name) is None]
    if 0 < len(missing) < len(FILES):
        raise UserError(
            f"{folder} has only some files of Fashion-MNIST; missing: "
            f"{', '.join(f'{name}.gz' for name in missing)}. Add them or take the others out."
        )
    return not missing


def _load(folder: Path, origin: str, official: bool) -> Splits:
    """Both splits; `official` demands the official content, otherwise `origin` says what is."""
    train, train_is_official = _split(folder, "train", "train")
    test, test_is_official = _split(folder, "t10k", "test")
    if not (train_is_official and test_is_official):
        if official:
            raise UserError(f"{folder}: the files are damaged (their MD5 is not the official).")
        origin += f"; not the official files: {len(train)} training images"
    return Splits(train, None, test, f"fashion-mnist: {origin}")


def _split(folder: Path, prefix: str, name: str) -> tuple[ImageSplit, bool]:
    images_name, labels_name = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    images_path, labels_path = _file(folder, images_name), _file(folder, labels_name)
    assert images_path and labels_path
    images_NHW, images_md5 = read_idx(images_path, 3)
    labels_N, labels_md5 = read_idx(labels_path, 1)
    if len(images_NHW) != len(labels_N):
        raise UserError(
            f"{folder}: {len(images_NHW)} images in {images_path.name}, but {len(labels_N)} "
            f"labels in {labels_path.name}."
        )
    if labels_N.max() >= len(CLASS_NAMES):
        raise UserError(f"{labels_path}: expected labels from 0 to 9, found {labels_N.max()}.")
    split = ImageSplit(
        f"fashion-mnist {name}", CLASS_NAMES, labels_N.astype(np.int64), images_NHW[..., None]
    )
    return split, (images_md5, labels_md5) == (FILES[images_name], FILES[labels_name])
