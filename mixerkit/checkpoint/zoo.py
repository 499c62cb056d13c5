"""The models behind `zoo:NAME`: packaged ones, and published ones fetched into the user's cache.

What is fetched comes once, is checked, and is never half there.
"""

import os
import zipfile
from pathlib import Path

from mixerkit.checkpoint.documents import read_json
from mixerkit.download import Expected, cache_folder, fetch
from mixerkit.errors import UserError
from mixerkit.spec.mixer import MixerConfig, variant_of
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict
from mixerkit.spec.zoo import GOOGLE, Published

PACKAGED = Path(__file__).parent.parent / "weights"
"""The packaged models: one model folder for each `zoo:NAME`."""
MEBIBYTE = 1 << 20


def packaged() -> dict[str, Path]:
    """The models that ship with the package: the name after `zoo:` → the model's folder."""
    return {path.parent.name: path.parent for path in sorted(PACKAGED.glob("*/config.json"))}


def described(name: str) -> Published:
    """A packaged model in the words of the published ones; `top1` is that of its own test."""
    folder = packaged()[name]
    content = read_json(folder / "config.json")
    about, config = content["about"], from_dict(MixerConfig, content["model"])
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Published(
        name,
        file=folder.as_uri(),
        variant=variant_of(config),
        trained_on=about["data"]["source"],
        num_classes=config.num_classes,
        gelu=config.gelu,
        preprocess=from_dict(Preprocess, content["preprocess"]),
        mebibytes=size / MEBIBYTE,
        top1=100 * about["test"]["top1"],
        source="its own test images",
    )


def fetch_published(model: Published) -> Path:
    """The file of a published model in the cache, the folder of a packaged one or the hub's.

    MIXERKIT_ZOO names another place that has the authors' files under the same names.
    """
    if model.name in packaged():
        return packaged()[model.name]
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
