"""An exported model as a PyTorch module, so that what measures models measures it too.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixerkit.inference.exported import Exported, as_logits
from mixerkit.spec.preprocess import Preprocess


class ExportedModel(nn.Module):
    """Normalised images [B, I, H, W] → logits [B, K], computed by the file's runtime."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.exported, self.config = exported, exported.config
        self.preprocess: Preprocess | None = exported.preprocess
        self.about: dict[str, Any] = exported.about
        self.source = exported.source
        self.notes: tuple[str, ...] = ()

    def forward(self, x_BIHW: Tensor) -> Tensor:
        takes_pixels = self.exported.about["input"] == "pixels"
        images = self._pixels(x_BIHW) if takes_pixels else x_BIHW.numpy()
        result_BK = self.exported.run(images)
        return torch.from_numpy(as_logits(result_BK, self.exported.about["output"]))

    def _pixels(self, x_BIHW: Tensor) -> np.ndarray:
        """The 8-bit images [B, H, W, I] that were normalised."""
        assert self.preprocess
        mean, std = (
            torch.tensor(values).view(-1, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        values = ((x_BIHW * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return values.permute(0, 2, 3, 1).contiguous().numpy()
