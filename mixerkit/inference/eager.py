"""A PyTorch model behind the interface that exported models have.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

import numpy as np
import torch

from mixerkit.data.augment import normalise
from mixerkit.inference.exported import softmax
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
