"""All ways to mix tokens are one function; the study writes one row for each."""

import pytest
import torch
from torch import nn

from mixerkit.benchmark import token_mixing
from mixerkit.benchmark.token_mixing import PATCH_MAJOR, WAYS, mixer_by, one_product_backward
from mixerkit.results import read_results
from tests.model.random_weights import SMALL, random_images, random_mixer


def outputs_and_gradients(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    images = images.clone().requires_grad_()
    logits = model(images)
    logits.square().sum().backward()
    with torch.inference_mode():
        assert torch.equal(model(images), logits)
    return [logits.detach(), images.grad, *(tensor.grad for tensor in model.parameters())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_way_gives_the_same_logits_and_gradients(way, batch):
    model, images = random_mixer(SMALL), random_images(SMALL, batch)
    expected = outputs_and_gradients(model, images)
    twin = mixer_by(way, model)
    found = outputs_and_gradients(twin, images)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("way", [way for way in WAYS if way != PATCH_MAJOR])
def test_a_product_is_the_linear_map_along_the_tokens(way):
    linear = nn.Linear(6, 4).double()
    x_BSC = torch.randn(2, 6, 5, dtype=torch.float64)
    by_hand = torch.stack([linear.weight @ x_SC + linear.bias[:, None] for x_SC in x_BSC])
    assert (WAYS[way](x_BSC, linear) - by_hand).abs().max() <= 1e-12


def test_our_own_backward_is_the_derivative():
    linear = nn.Linear(3, 4).double()
    x_BSC = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)

    def product(x_BSC, weight, bias):
        return token_mixing._OneProductForTheWeight.apply(x_BSC, weight, bias)

    assert torch.autograd.gradcheck(product, (x_BSC, linear.weight, linear.bias))
    assert one_product_backward(x_BSC, linear).shape == (2, 4, 2)


def test_twins_share_the_parameters_and_leave_the_model_alone():
    model = random_mixer(SMALL)
    kinds = [type(block.token_mixing) for block in model.blocks]
    twin = mixer_by("einsum", model)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in model.parameters()}
    assert [type(block.token_mixing) for block in model.blocks] == kinds
    assert type(twin.blocks[0].token_mixing) not in kinds


def test_quick_study_writes_its_rows(tmp_path):
    said = []
    rows = token_mixing.study(tmp_path / "a.json", said.append, quick=True)
    content = read_results(tmp_path / "a.json")
    assert content["command"] == "mixer bench token-mixing --quick" and content["rows"] == rows
    assert [(row["mode"], row["way"]) for row in rows] == [
        (mode, way) for mode in ("forward", "training") for way in WAYS
    ]
    assert all(row["seconds"] > 0 and row["matrix_rate"] > 0 for row in rows)
    assert [row["speedup"] for row in rows if row["way"] == token_mixing.IN_USE] == [1, 1]
    assert len(said) == 2 and all("einsum" in line for line in said)
