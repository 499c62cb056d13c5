"""The images on which `mixer export` compares a model, and finds and judges its 8 bits."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixerkit.cli.counting import Counting
from mixerkit.cli.images import own_data, same_images
from mixerkit.cli.progress import Console
from mixerkit.cli.text import plural
from mixerkit.errors import UserError
from mixerkit.inference.samples import (
    NEEDED,
    Samples,
    Watch,
    divided,
    parted,
    samples_of,
    some_of,
    spread,
    suffice,
    usable,
)
from mixerkit.spec.recipe import Data

if TYPE_CHECKING:
    from mixerkit.cli.export import Export
    from mixerkit.data.sources import Splits
    from mixerkit.inference.eight_bits import Setting
    from mixerkit.inference.gate import Verdict
    from mixerkit.inference.mixer_graph import EightBits
    from mixerkit.model.mixer import MlpMixer

COUNT, NOISE = 512, 64
"""Images that are taken at most unless --count says otherwise; images of noise."""


def assume_preparation(model: "MlpMixer") -> None:
    """How images are prepared, where the model does not say it; a note tells."""
    from mixerkit.spec.preprocess import plain_preprocess

    if model.preprocess is None:
        model.preprocess = plain_preprocess(model.config)
        note = "images are prepared as by default (values from -1 to 1): the model does not say how"
        model.notes = (*model.notes, note)


def images_for(model: "MlpMixer", given: "Export") -> np.ndarray:
    """What the exported model is compared on, uint8 [N, I, H, W]: `given` images, or noise."""
    if not given.images:
        return noise(model)
    assert model.preprocess
    files = _files(given)
    if files:
        return _read(files, model, given)
    every, _ = divided(_splits(model, given))
    return some_of(every, model.preprocess, given.count or COUNT, _counted())


def samples_for(model: "MlpMixer", given: "Export") -> Samples:
    """What int8 finds its ranges on, of the training images, and what it is judged by: validation
    images, where the source has enough."""
    assert model.preprocess
    count, files = given.count or COUNT, _files(given)
    if files:
        _check_count(count, len(files))
        return parted(_read(files, model, given))
    splits = _splits(model, given)
    every, held = divided(splits)
    _check_count(count, len(every), len(held) if held else 0)
    return samples_of(splits, model.preprocess, count, _counted())


def rounded_on(samples: Samples, model: "MlpMixer", given: "Export") -> "tuple[EightBits, Verdict]":
    """How the model is computed in 8 bits, and what these images say of that."""
    from mixerkit.inference.export import weights_of
    from mixerkit.inference.gate import judged
    from mixerkit.inference.readers import readers_of
    from mixerkit.inference.runtimes import installed

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    assert model.preprocess
    about = (model.config, weights_of(model), model.preprocess)
    here = list(installed())
    if given.to != "web":
        here = readers_of(given.to, model.config, True, say)
    settings = settings_of(given)
    return judged(*about, samples, here, say, settings=settings, sense=given.sensitivity)


def settings_of(given: "Export") -> "tuple[Setting, ...]":
    """What is tried: all settings, with what is given in the place of their own."""
    from mixerkit.inference.eight_bits import SETTINGS

    instead = {"percentile": given.percentile, "smooth": given.smooth}
    known = {name: value for name, value in instead.items() if value is not None}
    return tuple(dict.fromkeys(replace(one, **known) for one in SETTINGS))


def _check_count(count: int, size: int, held: int = 0) -> None:
    """`UserError` where so many of the images, and of the `held` ones for validation, are too few
    while more of them would do."""
    most = max(size, held)
    enough = (n for n in range(count, most + 1) if suffice(min(n, size), min(n, held)))
    least = next(enough, count)
    there = f"{size:,} images{f' and {held:,} for validation' if held else ''}"
    if not suffice(min(most, size), min(most, held)):
        raise UserError(f"{NEEDED}, found {there} in all: give more images.")
    if least > count:
        raise UserError(
            f"{NEEDED}. There are {there}, of which --count {count} takes too few: give --count "
            f"{least} or more."
        )


def _splits(model: "MlpMixer", given: "Export") -> "Splits":
    """The source that is given, or that the model was trained on."""
    from mixerkit.data.sources import opened

    own = own_data(model)
    if not (given.images or own.source):
        raise UserError(
            "int8 needs real images to find its ranges on, and this model does not say what it "
            "was trained on: give --images NAME|FOLDER."
        )
    data = _data(own, given)
    with _saying_where_else(own.source if data.source == own.source else ""):
        splits = opened(data)
    _say(splits.origin)
    return splits


def _data(own: Data, given: "Export") -> Data:
    """A model's `own` data, in --root where that is given; or other data, all of it."""
    if not given.images:
        return replace(own, root=given.root or own.root)
    named = Data(source=given.images, root=given.root)
    is_own = same_images(replace(named, root=given.root or own.root), own)
    return own if is_own else named


@contextmanager
def _saying_where_else(own: str) -> Iterator[None]:
    """Errors call --root as it is written, and those about a model's `own` source say how to give
    another place, or other images."""
    try:
        yield
    except UserError as error:
        more = (
            f" The model was trained on {own}: --root FOLDER says where a named set is now, "
            f"--images NAME|FOLDER takes other images."
        )
        error.args = (str(error).replace("data.root", "--root") + (more if own else ""),)
        raise


def _files(given: "Export") -> list[Path]:
    """The images of a folder that has no classes; none of other sources."""
    from mixerkit.data.folder import images_directly_in
    from mixerkit.data.sources import SOURCES

    if not given.images or given.images in SOURCES:
        return []
    bases = ("", given.root, os.environ.get("MIXERKIT_DATA", ""))  # as a source is looked for
    places = (Path(base, given.images) for base in bases)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None or _has_classes(folder):
        return []
    return images_directly_in(folder)


def _has_classes(folder: Path) -> bool:
    """Whether images of a folder are in folders of their own, and others beside these left out."""
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    return len(inside) > 1


def _read(files: list[Path], model: "MlpMixer", given: "Export") -> np.ndarray:
    """Some of the files, spread over all of them, uint8 [N, I, H, W]."""
    from mixerkit.data.decode import fit, read

    assert model.preprocess
    _say(f"{files[0].parent}, a folder of {plural(len(files), 'image')}")
    preprocess, chosen = model.preprocess, spread(len(files), given.count or COUNT)
    return usable(lambda index: read(files[index], preprocess, fit), chosen, _counted())


def _counted() -> Watch:
    """How many images were read, on stderr with the time left."""
    console, counting = Console(sys.stderr), dict[int, Counting]()

    def watch(done: int, total: int) -> None:
        if not done:
            counting[total] = Counting(console, "images", total)
        counting[total](done)

    return watch


def _say(origin: str) -> None:
    print(f"images: {origin}", file=sys.stderr, flush=True)


def noise(model: "MlpMixer") -> np.ndarray:
    """8-bit images without meaning, uint8 [N, I, H, W]; the same every time."""
    shape = (NOISE, model.config.in_channels, *model.config.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
