"""Image files → likeliest classes: decoded in threads while the model computes, in order.

Letters: B images of a batch, I image channels, H and W height and width, K classes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixerkit.data.augment import normalise
from mixerkit.data.decode import canvas, fit, read
from mixerkit.data.readers import PATIENCE, Result, Work, fetch
from mixerkit.errors import UserError
from mixerkit.inference.tiles import tiled_logits
from mixerkit.model.mixer import MlpMixer

BATCHES_AHEAD = 2  # decoded while the model computes: bounds the memory, hides the disk


@dataclass(frozen=True)
class Prediction:
    """One image's likeliest classes as (name, probability), the likeliest first; or none, and
    `error` says why the file cannot be used."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    error: str = ""


def predict_files(
    model: MlpMixer,
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
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

    `workers` threads decode (0: one per processor). Runs in inference mode on the model's
    device. A file that cannot be used raises `UserError` naming it, after the predictions of
    all files before it; with `keep_going` it gives a `Prediction` with an `error` instead. When
    no file could be read for `patience` seconds, `RunFailed` is raised.
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
    load: Callable[[Path], np.ndarray] = partial(read, preprocess=preprocess, prepare=fit)
    compute: Callable[[Tensor], Tensor] = model
    if tiles:
        whole = replace(preprocess, resize="shortest", resize_to=tiles * max(preprocess.image_hw))
        load = partial(read, preprocess=whole, prepare=canvas)
        compute = partial(tiled_logits, model, batch_size=batch_size)
        batch_size = 1
    loaded = _loaded(files, load, batch_size, workers, patience)
    return _predictions(model, loaded, top, compute, keep_going)


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
    model: MlpMixer,
    loaded: Generator[tuple[list[Path], list[Result]]],
    top: int,
    compute: Callable[[Tensor], Tensor],
    keep_going: bool,
) -> Iterator[Prediction]:
    """`compute` gives logits [B, K] of images [B, I, H, W] by the model."""
    names = _class_names(model)
    with closing(loaded):
        for files, results in loaded:
            images = [result for result in results if isinstance(result, np.ndarray)]
            likely = iter(_likeliest(model, compute, images, min(top, len(names))))
            for path, result in zip(files, results, strict=True):
                if isinstance(result, np.ndarray):
                    yield Prediction(path, tuple((names[label], p) for label, p in next(likely)))
                elif keep_going:
                    yield Prediction(path, (), error=str(result))
                else:
                    raise result


def _class_names(model: MlpMixer) -> tuple[str, ...]:
    """Names by label; the label itself where the model knows no names."""
    assert model.preprocess is not None
    return model.preprocess.class_names or tuple(map(str, range(model.config.num_classes)))


def _likeliest(
    model: MlpMixer, compute: Callable[[Tensor], Tensor], images: list[np.ndarray], top: int
) -> list[list[tuple[int, float]]]:
    """(label, probability) of the `top` classes of each image; equal ones in label order."""
    if not images:
        return []
    assert model.preprocess is not None
    x_BIHW = normalise(torch.from_numpy(np.stack(images)), model.preprocess)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            p_BK: Tensor = compute(x_BIHW.to(device)).float().softmax(dim=1).cpu()
    finally:
        model.train(was_training)
    values_BK, labels_BK = p_BK.sort(dim=1, descending=True, stable=True)
    return [
        list(zip(labels[:top], values[:top], strict=True))
        for labels, values in zip(labels_BK.tolist(), values_BK.tolist(), strict=True)
    ]
