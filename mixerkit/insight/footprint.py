"""Which tokens can influence which, measured by gradients.

Letters: S tokens, C channels.
"""

import itertools

import numpy as np
import torch
from torch import nn

from mixerkit.spec.mixer import MixerConfig


def footprint(mixing: nn.Module, config: MixerConfig, seed: int = 0) -> np.ndarray:
    """[S, S] in [0, ∞): how much token t of one tile influences token s through a token mixer (or
    any map [1, S, C] → [1, S, C], such as a block): row s, column t is the mean size of the
    gradient of a random sum of s's channels, at a random point.

    Exactly 0 where there is no influence, whatever the input.
    """
    own = itertools.chain(mixing.parameters(), mixing.buffers())
    like = next(own, torch.zeros(0, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    shape = (1, config.tile_patches, config.width)
    x_1SC = torch.randn(shape, generator=generator).to(like).requires_grad_()
    probe_C = torch.randn(config.width, generator=generator).to(like)
    with torch.enable_grad():
        y_S = mixing(x_1SC)[0] @ probe_C
        rows = [torch.autograd.grad(y, x_1SC, retain_graph=True)[0][0] for y in y_S]
    return torch.stack(rows).abs().mean(dim=2).double().cpu().numpy()
