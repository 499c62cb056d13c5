"""Published models into the user's cache: fetched once, checked, and never half there."""

import os
import zipfile
from pathlib import Path

from mixerkit.download import Expected, cache_folder, fetch
from mixerkit.errors import UserError
from mixerkit.spec.zoo import GOOGLE, Published

MEBIBYTE = 1 << 20


def fetch_published(model: Published) -> Path:
    """The file of a published model in the cache (a folder for those of the hub).

    MIXERKIT_ZOO names another place that has the authors' files under the same names.
    """
    if model.file.startswith("hf://"):
        from mixerkit.checkpoint.hub import fetch_from_hub

        return fetch_from_hub(model.file)
    path = cached(model)
    base = os.environ.get("MIXERKIT_ZOO") or GOOGLE
    try:
        fetch(f"{base.rstrip('/')}/{model.file}", path, expected(model), verify=check_archive)
    except UserError as error:
        advice = "" if str(path) in str(error) else f" Or get the file elsewhere, to {path}."
        raise UserError(f"{error}{advice}") from error
    return path


def cached(model: Published) -> Path:
    """Where the cache keeps the file of a published model."""
    return cache_folder() / "zoo" / model.file


def expected(model: Published) -> Expected:
    """The size as published, to the hundredth of a MiB that it is known to."""
    if not model.mebibytes:
        return Expected()
    least, most = ((model.mebibytes + edge) * MEBIBYTE for edge in (-0.01, 0.01))
    return Expected(int(least), int(most) + 1)


def check_archive(path: Path) -> None:
    """Compare every part of a .npz with the checksum that it carries."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile and its decompressors have a dozen kinds
        raise UserError(f"it is no whole .npz file: {error}") from error
    if broken:
        raise UserError(f"the checksum of '{broken}' in it is wrong")
