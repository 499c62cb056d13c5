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

    def forward(
        self, logits_BK: Tensor, targets_BK: Tensor, whole_weight: Tensor | None = None
    ) -> Tensor:
        """The mean loss; for a micro-batch, its share of the mean over a batch that weighs
        `whole_weight`, so that the shares add up to the whole batch's loss."""
        smooth_BK = self._smooth(targets_BK)
        if self.spec.kind == "softmax":
            terms_BK = -smooth_BK * F.log_softmax(_precise(logits_BK), dim=1)
        else:
            terms_BK = F.binary_cross_entropy_with_logits(
                _precise(logits_BK), smooth_BK.to(_precise(logits_BK).dtype), reduction="none"
            )
        weight = self.weight(targets_BK) if whole_weight is None else whole_weight
        if self.spec.class_weights == "none":
            return terms_BK.sum() / weight
        return (terms_BK * self.weights_K).sum() / weight

    def weight(self, targets_BK: Tensor) -> Tensor:
        """What the mean over these targets divides by: their number, or their weights' sum."""
        if self.spec.class_weights == "none":
            return targets_BK.new_tensor(float(len(targets_BK)))
        return (self._smooth(targets_BK) * self.weights_K).sum()

    def _smooth(self, targets_BK: Tensor) -> Tensor:
        if not self.spec.label_smoothing:
            return targets_BK
        share = self.spec.label_smoothing
        return targets_BK * (1 - share) + share / targets_BK.shape[1]


def _precise(logits: Tensor) -> Tensor:
    """At least in float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
