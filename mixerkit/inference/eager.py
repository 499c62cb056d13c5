"""A PyTorch model behind the interface that exported models have.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.data.augment import normalise
from mixerkit.inference.exported import softmax
from mixerkit.inference.runtimes import Run
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess


class Eager:
    """Runs on the model's device, in inference mode; the model's training flag is put back."""

    def __init__(self, model: MlpMixer) -> None:
        self.model, self.config = model, model.config
        self.preprocess: Preprocess | None = model.preprocess

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        assert self.preprocess
        x_BIHW = normalise(torch.from_numpy(pixels_BIHW), self.preprocess)
        parameter, was_training = next(self.model.parameters()), self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                result = self.model(x_BIHW.to(parameter.device, parameter.dtype))
        finally:
            self.model.train(was_training)
        found: np.ndarray = result.float().cpu().numpy()
        return found

    def probabilities(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        return softmax(self.logits(pixels_BIHW))


def eager_run(model: MlpMixer, threads: int) -> Run:
    """The model itself as what runs normalised images; `threads` 0 leaves PyTorch's number."""
    return _run(model, model, threads)


def compiled_run(model: nn.Module, threads: int) -> Run:
    """The model compiled with its weights as constants; every batch size is compiled anew, which
    takes long."""
    from torch._inductor import config

    run = _run(model, torch.compile(model, dynamic=False), threads)

    def frozen(x_BIHW: np.ndarray) -> np.ndarray:
        with config.patch(freezing=True):  # it is compiled when it is called first
            return run(x_BIHW)

    return frozen


def _run(model: nn.Module, call: Any, threads: int) -> Run:
    model.eval()
    if threads:
        torch.set_num_threads(threads)

    def run(x_BIHW: np.ndarray) -> np.ndarray:
        parameter = next(model.parameters())
        with torch.no_grad():
            result = call(torch.from_numpy(x_BIHW).to(parameter.device, parameter.dtype))
        found: np.ndarray = result.float().cpu().numpy()
        return found

    return run
