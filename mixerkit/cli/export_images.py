"""The images on which `mixer export` compares a model, and finds and judges its 8 bits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixerkit.cli.images import own_data
from mixerkit.errors import UserError
from mixerkit.inference.samples import Samples, parted, samples_of, some_of, spread

if TYPE_CHECKING:
    from mixerkit.cli.export import Export
    from mixerkit.data.sources import Splits
    from mixerkit.model.mixer import MlpMixer

NOISE = 64
"""Images that are compared."""


def images_for(model: "MlpMixer", given: "Export") -> np.ndarray:
    """What the exported model is compared on, uint8 [N, I, H, W]: `given` images, or noise."""
    if not given.images:
        return noise(model)
    assert model.preprocess
    flat = _files(given, model)
    if flat is not None:
        return flat
    return some_of(_splits(model, given).train, model.preprocess, given.count)


def samples_for(model: "MlpMixer", given: "Export") -> Samples:
    """What int8 finds its ranges on, of the training images, and what it is judged by: validation
    images, where the source has enough."""
    flat = _files(given, model)
    if flat is not None:
        return parted(flat)
    assert model.preprocess
    return samples_of(_splits(model, given), model.preprocess, given.count)


def _splits(model: "MlpMixer", given: "Export") -> "Splits":
    """The source that is given, or that the model was trained on."""
    from mixerkit.data.sources import open_source, opened

    if given.images:
        return open_source(given.images, given.root)
    own = own_data(model)
    if not own.source:
        raise UserError(
            "int8 needs real images to find its ranges on, and this model does not say what it "
            "was trained on: give --images NAME|FOLDER."
        )
    return opened(own)


def _files(given: "Export", model: "MlpMixer") -> np.ndarray | None:
    """Images of a folder that has no classes, spread over all of it; None of other sources."""
    from mixerkit.data.decode import fit, read
    from mixerkit.data.folder import images_directly_in

    folder = Path(given.images)
    if not given.images or not folder.is_dir():
        return None
    files = images_directly_in(folder)
    if not files:
        return None
    assert model.preprocess
    chosen = spread(len(files), given.count)
    return np.stack([read(files[index], model.preprocess, fit) for index in chosen])


def noise(model: "MlpMixer") -> np.ndarray:
    """8-bit images without meaning, uint8 [N, I, H, W]; the same every time."""
    shape = (NOISE, model.config.in_channels, *model.config.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
