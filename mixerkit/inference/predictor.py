"""Image files → likeliest classes: decoded in threads while the model computes, in order.

Letters: B images of a batch, I image channels, H and W height and width, K classes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from mixerkit.data.decode import EXTENSIONS, MAX_PIXELS, canvas, fit, read
from mixerkit.data.folder import images_below
from mixerkit.data.readers import PATIENCE, Result, Work, fetch
from mixerkit.errors import UserError
from mixerkit.inference.exported import softmax
from mixerkit.inference.tiles import over_tiles
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

if TYPE_CHECKING:
    from mixerkit.model.mixer import MlpMixer

BATCH_SIZE = 32  # images computed at once, so that decoding need not be waited for
BATCHES_AHEAD = 2  # decoded while the model computes: bounds the memory, hides the disk


@runtime_checkable
class Classifier(Protocol):
    """What names the classes of images: a PyTorch model or an exported one."""

    @property
    def config(self) -> MixerConfig:
        """The model's shapes."""

    @property
    def preprocess(self) -> Preprocess | None:
        """How images are prepared for it."""

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """[B, K] of 8-bit images."""


@dataclass(frozen=True)
class Prediction:
    """One image's likeliest classes as (name, probability), the likeliest first; or none, and
    `error` says why the file cannot be used."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    error: str = ""


def predict_files(
    model: "MlpMixer | Classifier",
    paths: Sequence[str | Path],
    *,
    batch_size: int = BATCH_SIZE,
    top: int = 5,
    workers: int = 0,
    tiles: int = 0,
    patience: float = PATIENCE,
    keep_going: bool = False,
) -> Iterator[Prediction]:
    """The `top` classes of every image file, in the order of `paths`, as they are computed.

    With `tiles`, the whole photograph is looked at instead of its centre: its short side is
    scaled to `tiles` times the model's image, and overlapping tiles cover it
    (`inference/tiles.py`).

    `workers` threads decode (0: one per processor). A PyTorch model runs in inference mode on its
    device; an exported one needs no PyTorch. A file that cannot be used raises `UserError` naming
    it, after the predictions of all files before it; with `keep_going` it gives a `Prediction` with
    an `error` instead. When no file could be read for `patience` seconds, `RunFailed` is raised.
    """
    if model.preprocess is None or not model.config.num_classes:
        raise UserError(
            "This model cannot name classes: it was not trained here, or has no head. Give a "
            "run folder, a model folder or zoo:NAME."
        )
    if batch_size < 1 or top < 1:
        raise UserError(f"batch_size and top must be at least 1, found {batch_size} and {top}.")
    if tiles < 0:
        raise UserError(f"tiles must be 0 (off) or the tiles along the short side, found {tiles}.")
    if isinstance(paths, str | Path):
        raise UserError(f"paths must be a list of files, found the single path {str(paths)!r}.")
    files, preprocess = [Path(path) for path in paths], model.preprocess
    side = max(preprocess.image_hw)
    if (tiles * side) ** 2 > MAX_PIXELS:
        raise UserError(
            f"{tiles} tiles of {side} px on a side make an image above the limit of "
            f"{MAX_PIXELS:,} pixels: give fewer tiles."
        )
    load: Callable[[Path], np.ndarray] = partial(read, preprocess=preprocess, prepare=fit)
    classifier = classifier_of(model)
    compute = classifier.logits
    if tiles:
        whole = replace(preprocess, resize="shortest", resize_to=tiles * max(preprocess.image_hw))
        load = partial(read, preprocess=whole, prepare=canvas)
        compute = partial(_of_tiles, classifier, batch_size)
        batch_size = 1
    loaded = _loaded(files, load, batch_size, workers, patience)
    return _predictions(classifier, loaded, top, compute, keep_going)


def images_in(folder: Path) -> list[Path]:
    """Every image file below, in order of name; hidden ones and other files are left out."""
    found = sorted(path for path in images_below(folder, lambda path: None) if path.is_file())
    if not found:
        raise UserError(f"No images in {folder}: looked for {', '.join(EXTENSIONS)}.")
    return found


def classifier_of(model: "MlpMixer | Classifier") -> Classifier:
    """The model as what names classes; PyTorch is imported for its own models only."""
    if isinstance(model, Classifier):
        return model
    from mixerkit.inference.eager import Eager

    return Eager(model)


def _of_tiles(classifier: Classifier, batch_size: int, pixels_BIHW: np.ndarray) -> np.ndarray:
    """Logits [B, K] of images larger than the model's: the mean over overlapping tiles."""
    found: np.ndarray = over_tiles(
        lambda tiles: classifier.logits(np.concatenate(tiles)),
        pixels_BIHW,
        classifier.config.image_hw,
        batch_size=batch_size,
    )
    return found


def _loaded(
    files: Sequence[Path],
    load: Callable[[Path], np.ndarray],
    batch_size: int,
    workers: int,
    patience: float,
) -> Generator[tuple[list[Path], list[Result]]]:
    """The files of every batch, and for each its image [I, H, W] or what is wrong with it."""

    def begin(indices: np.ndarray) -> list[Work]:
        return [partial(load, files[index]) for index in indices]

    numbers = np.arange(len(files))
    batches = [numbers[i : i + batch_size] for i in range(0, len(files), batch_size)]
    fetched = fetch(
        batches,
        begin,
        lambda index: str(files[index]),
        workers=workers,
        patience=patience,
        ahead=BATCHES_AHEAD,
    )
    for indices, results in fetched:
        yield [files[index] for index in indices], results


def _predictions(
    classifier: Classifier,
    loaded: Generator[tuple[list[Path], list[Result]]],
    top: int,
    compute: Callable[[np.ndarray], np.ndarray],
    keep_going: bool,
) -> Iterator[Prediction]:
    """`compute` gives logits [B, K] of 8-bit images [B, I, H, W]."""
    with closing(loaded):
        for files, results in loaded:
            images = [result for result in results if isinstance(result, np.ndarray)]
            logits_BK = compute(np.stack(images)) if images else np.zeros((0, 1))
            likely = iter(likeliest(classifier, logits_BK, top))
            for path, result in zip(files, results, strict=True):
                if isinstance(result, np.ndarray):
                    yield Prediction(path, next(likely))
                elif keep_going:
                    yield Prediction(path, (), error=str(result))
                else:
                    raise result


def _class_names(model: Classifier) -> tuple[str, ...]:
    """Names by label; the label itself where the model knows no names."""
    assert model.preprocess is not None
    return model.preprocess.class_names or tuple(map(str, range(model.config.num_classes)))


def likeliest(
    model: Classifier, logits_BK: np.ndarray, top: int
) -> list[tuple[tuple[str, float], ...]]:
    """(name, probability) of the `top` classes of each image; equal ones in label order.
    `UserError`: the model gives what is no number."""
    if np.isnan(logits_BK).any():
        raise UserError(
            "The model gives outputs that are no numbers: its weights are damaged, or it was "
            "trained until it diverged."
        )
    names, p_BK = _class_names(model), softmax(logits_BK)
    labels_BK = np.argsort(-p_BK, axis=1, kind="stable")[:, :top]
    values_BK = np.take_along_axis(p_BK, labels_BK, axis=1)
    return [
        tuple((names[label], p) for label, p in zip(labels, values, strict=True))
        for labels, values in zip(labels_BK.tolist(), values_BK.tolist(), strict=True)
    ]
