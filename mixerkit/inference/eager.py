"""A PyTorch model behind the interface that exported models have.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixerkit.data.augment import normalise
from mixerkit.evaluation.accuracy import evaluating
from mixerkit.inference.exported import softmax
from mixerkit.inference.runtimes import InFloat, Run
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess

SIZES = (1, 8, 32)
"""Images at once for which a model is compiled."""


class Eager:
    """Runs on the model's device, in inference mode; training flags are put back."""

    def __init__(self, model: MlpMixer) -> None:
        self.model, self.config = model, model.config
        self.preprocess: Preprocess | None = model.preprocess

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        assert self.preprocess
        x_BIHW = normalise(torch.from_numpy(pixels_BIHW), self.preprocess)
        parameter = next(self.model.parameters())
        with evaluating(self.model.modules()), torch.inference_mode():
            result = self.model(x_BIHW.to(parameter.device, parameter.dtype))
        found: np.ndarray = result.float().cpu().numpy()
        return found

    def probabilities(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        return softmax(self.logits(pixels_BIHW))


def eager_run(model: MlpMixer, threads: int, kind: InFloat = "float32") -> Run:
    """The model itself as what runs normalised images; `threads` 0 leaves PyTorch's number. With
    `kind` "bfloat16" products are computed in it, and LayerNorms are not."""
    if kind == "float32":
        return _run(model, model, threads)

    def in_bfloat16(x_BIHW: Tensor) -> Any:
        with torch.autocast(x_BIHW.device.type, torch.bfloat16):
            return model(x_BIHW)

    return _run(model, in_bfloat16, threads)


def compiled_run(model: nn.Module, threads: int) -> Run:
    """The model compiled with its weights as constants; every batch size is compiled anew, which
    takes long."""
    from torch._inductor import config

    run = _run(model, torch.compile(model, dynamic=False), threads)

    def frozen(x_BIHW: np.ndarray) -> np.ndarray:
        with config.patch(freezing=True):  # it is compiled when it is called first
            return run(x_BIHW)

    return frozen


def padded(run: Run) -> Run:
    """`run` called with batches of few sizes only, which is filled up with images of zeros: for
    what compiles every size anew."""

    def few_sizes(x_BIHW: np.ndarray) -> np.ndarray:
        if len(x_BIHW) > SIZES[-1]:
            parts = [x_BIHW[i : i + SIZES[-1]] for i in range(0, len(x_BIHW), SIZES[-1])]
            return np.concatenate([few_sizes(part) for part in parts])
        size = next(size for size in SIZES if size >= len(x_BIHW))
        more = np.zeros((size - len(x_BIHW), *x_BIHW.shape[1:]), x_BIHW.dtype)
        return run(np.concatenate([x_BIHW, more]))[: len(x_BIHW)]

    return few_sizes


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """PyTorch computes on so many threads; 0 changes nothing."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)


def _run(model: nn.Module, call: Any, threads: int) -> Run:
    """In inference mode at every call, one call at a time: what it changes of the model and of
    PyTorch is put back."""
    parameter, modules = next(model.parameters()), list(model.modules())
    they_are_mine = Lock()

    def run(x_BIHW: np.ndarray) -> np.ndarray:
        with they_are_mine, on_threads(threads), evaluating(modules), torch.no_grad():
            result = call(torch.from_numpy(x_BIHW).to(parameter.device, parameter.dtype))
        found: np.ndarray = result.float().cpu().numpy()
        return found

    return run
