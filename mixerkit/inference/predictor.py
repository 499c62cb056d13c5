"""Image files → likeliest classes: decoded in threads while the model computes, in order.

Letters: B images of a batch, I image channels, H and W height and width, K classes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixerkit.data.augment import normalise
from mixerkit.data.decode import canvas, fit, read
from mixerkit.data.pixels import processors
from mixerkit.errors import UserError
from mixerkit.inference.tiles import tiled_logits
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess

BATCHES_AHEAD = 2  # decoded while the model computes: bounds the memory, hides the disk


@dataclass(frozen=True)
class Prediction:
    """One image's likeliest classes as (name, probability), the likeliest first."""

    path: Path
    classes: tuple[tuple[str, float], ...]


def predict_files(
    model: MlpMixer,
    paths: Sequence[str | Path],
    *,
    batch_size: int = 32,
    top: int = 5,
    workers: int = 0,
    tiles: int = 0,
) -> Iterator[Prediction]:
    """The `top` classes of every image file, in the order of `paths`, as they are computed.

    With `tiles`, the whole photograph is looked at instead of its centre: its short side is
    scaled to `tiles` times the model's image, and overlapping tiles cover it
    (`inference/tiles.py`).

    `workers` threads decode (0: one per processor). Runs in inference mode on the model's
    device. A file that cannot be used raises `UserError` naming it, after the predictions of
    all files before it.
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
    if not tiles:
        decoded = _decoded(
            files, partial(read, preprocess=preprocess, prepare=fit), batch_size, workers
        )
        return _predictions(model, preprocess, decoded, top, model)
    side = tiles * max(preprocess.image_hw)
    whole = replace(preprocess, resize="shortest", resize_to=side)
    decoded = _decoded(files, partial(read, preprocess=whole, prepare=canvas), 1, workers)
    compute = partial(tiled_logits, model, batch_size=batch_size)
    return _predictions(model, preprocess, decoded, top, compute)


# The files of a batch, the images [I, H, W] of those before the first broken one, what is
# wrong with that one.
Decoded = tuple[tuple[Path, ...], list[np.ndarray], UserError | None]


def _predictions(
    model: MlpMixer,
    preprocess: Preprocess,
    decoded: Iterator[Decoded],
    top: int,
    compute: Callable[[Tensor], Tensor],
) -> Iterator[Prediction]:
    """`compute` gives logits [B, K] of images [B, I, H, W] by the model."""
    names = _class_names(model)
    for files, images, broken in decoded:
        if images:
            x_BIHW = normalise(torch.from_numpy(np.stack(images)), preprocess)
            likely = _likeliest(model, compute, x_BIHW, min(top, len(names)))
            for path, classes in zip(files, likely, strict=False):
                yield Prediction(path, tuple((names[label], p) for label, p in classes))
        if broken:
            raise broken


def _class_names(model: MlpMixer) -> tuple[str, ...]:
    """Names by label; the label itself where the model knows no names."""
    assert model.preprocess is not None
    return model.preprocess.class_names or tuple(map(str, range(model.config.num_classes)))


def _decoded(
    paths: Sequence[Path], load: Callable[[Path], np.ndarray], batch_size: int, workers: int
) -> Iterator[Decoded]:
    """Every batch; unlike `pixels.fetch`, with the images before a broken one of its batch."""
    pool = ThreadPoolExecutor(workers or processors())
    waiting: deque[tuple[tuple[Path, ...], list[Future[np.ndarray]]]] = deque()
    try:
        for start in range(0, len(paths), batch_size):
            files = tuple(paths[start : start + batch_size])
            waiting.append((files, [pool.submit(load, file) for file in files]))
            if len(waiting) > BATCHES_AHEAD:
                yield _collect(*waiting.popleft())
        while waiting:
            yield _collect(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(files: tuple[Path, ...], images: list[Future[np.ndarray]]) -> Decoded:
    done: list[np.ndarray] = []
    for image in images:
        try:
            done.append(image.result())
        except UserError as error:
            return files, done, error
    return files, done, None


def _likeliest(
    model: MlpMixer, compute: Callable[[Tensor], Tensor], x_BIHW: Tensor, top: int
) -> list[list[tuple[int, float]]]:
    """(label, probability) of the `top` classes of each image; equal ones in label order."""
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
