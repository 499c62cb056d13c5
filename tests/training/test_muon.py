"""Muon against the singular value decomposition and against torch's own."""

import pytest
import torch

from mixerkit.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(64, 49), (49, 64), (256, 64), (64, 64)])
def test_orthogonalise_keeps_directions_and_levels_singular_values(shape: tuple[int, int]) -> None:
    g = torch.randn(3, *shape)
    u, values, v = torch.linalg.svd(g, full_matrices=False)
    levelled = u.mT @ orthogonalise(g) @ v.mT
    diagonal = levelled.diagonal(dim1=1, dim2=2)
    assert (levelled - torch.diag_embed(diagonal)).abs().max() < 1e-3
    large = values > 0.05 * values.amax(dim=1, keepdim=True)
    assert diagonal[large].min() > 0.6
    assert diagonal[large].max() < 1.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_updates_match_torchs_muon_within_its_bfloat16(dtype: torch.dtype) -> None:
    start = [torch.randn(48, 16), torch.randn(16, 48), torch.randn(48, 16)]
    ours = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    settings = dict(lr=0.02, weight_decay=0.1, momentum=0.95)
    mine, peer = Muon(ours, **settings, dtype=dtype), torch.optim.Muon(theirs, **settings)
    for _ in range(6):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        peer.step()
    for a, b, p in zip(ours, theirs, start, strict=True):
        moved, expected = a.detach() - p, b.detach() - p
        assert (moved - expected).norm() < 0.03 * expected.norm()
        assert a.dtype == mine.state[a]["momentum"].dtype == torch.float32


def test_parameters_without_gradients_stay() -> None:
    a, b = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4, 4))
    a.grad = torch.randn(4, 4)
    Muon([a, b], weight_decay=0.5).step()
    assert torch.equal(b, torch.ones(4, 4))
    assert not torch.equal(a, torch.ones(4, 4))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices only"):
        Muon([torch.nn.Parameter(torch.ones(4))])
