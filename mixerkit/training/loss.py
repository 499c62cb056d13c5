"""The loss of a batch: softmax or sigmoid cross-entropy against soft targets [B, K]."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixerkit.spec.recipe import Loss


class TargetLoss(nn.Module):
    """logits [B, K], targets [B, K] with rows that sum to 1 → mean loss of the batch.

    Label smoothing ε gives every class ε / K and the target 1 − ε of its share. Class
    weights scale each class's term; the mean is taken over the weights, as in PyTorch.
    """

    def __init__(self, spec: Loss, class_counts: np.ndarray) -> None:
        super().__init__()
        self.spec = spec
        counts = torch.as_tensor(class_counts, dtype=torch.float32)
        balanced = counts.sum() / (len(counts) * counts.clamp(min=1))
        weights = balanced if spec.class_weights == "balanced" else torch.ones_like(counts)
        self.weights_K: Tensor
        self.register_buffer("weights_K", weights, persistent=False)

    def forward(self, logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
        if self.spec.label_smoothing:
            classes = targets_BK.shape[1]
            smooth = self.spec.label_smoothing
            targets_BK = targets_BK * (1 - smooth) + smooth / classes
        if self.spec.kind == "softmax":
            terms_BK = -targets_BK * F.log_softmax(logits_BK.float(), dim=1)
        else:
            terms_BK = F.binary_cross_entropy_with_logits(
                logits_BK.float(), targets_BK, reduction="none"
            )
        if self.spec.class_weights == "none":
            return terms_BK.sum() / len(terms_BK)
        return (terms_BK * self.weights_K).sum() / (targets_BK * self.weights_K).sum()
