"""`mixer bench token-mixing`: ways to compute W[T, S] @ x[B, S, C], timed inside whole models.

All give the same numbers; `model/token_mixers.py` uses the first.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixerkit.benchmark.measure import matrix_products
from mixerkit.benchmark.workload import MODES, Say, Workload
from mixerkit.model.mixer import MixerBlock, MlpMixer
from mixerkit.model.token_mixers import TokenMlp, across_tokens
from mixerkit.results import write_results
from mixerkit.timer import compare, interleave

Product = Callable[[Tensor, nn.Linear], Tensor]

IN_USE = "batched product, weight expanded"
PATCH_MAJOR = "patch-major activations"


def transposed(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """Channels-last tokens to `F.linear` and back: what timm does."""
    return F.linear(x_BSC.transpose(1, 2), linear_TS.weight, linear_TS.bias).transpose(1, 2)


def broadcast(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """`torch.matmul`, which chooses the product itself."""
    return torch.matmul(linear_TS.weight, x_BSC) + linear_TS.bias.unsqueeze(1)


def by_einsum(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """The formula as a text."""
    return torch.einsum("ts,bsc->btc", linear_TS.weight, x_BSC) + linear_TS.bias.unsqueeze(1)


class _OneProductForTheWeight(torch.autograd.Function):
    """The batched product, with the weight's gradient as one [T, B·C] @ [B·C, S] product:
    autograd makes [B, T, S] first and adds it up over B."""

    @staticmethod
    def forward(ctx: Any, x_BSC: Tensor, weight_TS: Tensor, bias_T: Tensor) -> Tensor:
        ctx.save_for_backward(x_BSC, weight_TS)
        return torch.baddbmm(bias_T.unsqueeze(1), weight_TS.expand(len(x_BSC), -1, -1), x_BSC)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g_BTC,) = gradients
        x_BSC, weight_TS = ctx.saved_tensors
        weight_BST = weight_TS.t().expand(len(g_BTC), -1, -1)
        g_TN = g_BTC.transpose(0, 1).flatten(1)  # N = B·C
        x_SN = x_BSC.transpose(0, 1).flatten(1)
        return torch.bmm(weight_BST, g_BTC), g_TN @ x_SN.t(), g_TN.sum(1)


def one_product_backward(x_BSC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """An autograd function of our own around the product in use."""
    product: Tensor = _OneProductForTheWeight.apply(x_BSC, linear_TS.weight, linear_TS.bias)
    return product


def patch_major(x_SBC: Tensor, linear_TS: nn.Linear) -> Tensor:
    """One plain product for the whole batch, on activations kept as [S, B, C]."""
    h_TN = torch.addmm(linear_TS.bias.unsqueeze(1), linear_TS.weight, x_SBC.flatten(1))
    return h_TN.unflatten(1, x_SBC.shape[1:])


WAYS: dict[str, Product] = {
    IN_USE: across_tokens,
    "transpose, linear, transpose": transposed,
    "matmul": broadcast,
    "einsum": by_einsum,
    "own backward, one product for the weight": one_product_backward,
    PATCH_MAJOR: patch_major,
}


class TokenMlpBy(nn.Module):
    """A block's token MLP with its own parameters and another product."""

    def __init__(self, product: Product, mlp: TokenMlp) -> None:
        super().__init__()
        self.product = product
        self.fc1, self.fc2, self.act = mlp.fc1, mlp.fc2, mlp.act

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.act(self.product(x, self.fc1)), self.fc2)


class PatchMajorMixer(nn.Module):
    """A Mixer whose activations are [S, B, C] between the stem and the mean."""

    def __init__(self, mixer: MlpMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x_BIHW: Tensor) -> Tensor:
        x_SBC = self.mixer.stem(x_BIHW).transpose(0, 1).contiguous()
        for block in self.mixer.blocks:
            x_SBC = block(x_SBC)
        return self.mixer.head(self.mixer.norm(x_SBC).mean(dim=0))


def mixer_by(way: str, model: MlpMixer) -> nn.Module:
    """`model` with token mixing computed in another way; the parameters are shared with it."""
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    for block in twin.blocks:
        assert isinstance(block, MixerBlock) and isinstance(block.token_mixing, TokenMlp)
        block.token_mixing = TokenMlpBy(WAYS[way], block.token_mixing)
    return PatchMajorMixer(twin) if way == PATCH_MAJOR else twin


# (model, batches, rounds): a B/16 training step of 8 images takes seconds.
CASES = (
    ("N/7", (1, 32, 128), 41),
    ("N/4", (1, 32, 128), 41),
    ("S/16", (1, 8), 15),
    ("B/16", (1, 8), 7),
)
QUICK_CASES = (("N/7", (2,), 3),)


def measure(work: Workload, rounds: int) -> list[dict[str, Any]]:
    """One row for each way: seconds, speed-up over the way in use, peak memory."""
    model = MlpMixer(work.config)
    twins = {way: mixer_by(way, model) for way in WAYS}
    calls = {way: work.call(twin) for way, twin in twins.items()}
    products, operations = matrix_products(work.config, work.batch)
    seconds = interleave({**calls, "products": products}, rounds=rounds)
    rate = operations / compare(seconds, "products")["products"].seconds
    rows = []
    for way, found in compare(seconds, IN_USE).items():
        if way == "products":
            continue
        rows.append(
            {
                **work.describe(),
                "way": way,
                "seconds": found.seconds,
                "speedup": found.speedup,
                "speedup_quartiles": [found.low, found.high],
                "peak_bytes": work.peak_memory(twins[way]),
                "matrix_rate": rate,
                "rounds": rounds,
            }
        )
    return rows


def _sentence(rows: list[dict[str, Any]]) -> str:
    first, *others = rows
    speedups = ", ".join(f"{row['way']} {row['speedup']:.2f}×" for row in others)
    case = f"{first['model']}, batch {first['batch']}, {first['mode']}"
    return f"{case}: {first['seconds'] * 1e3:.2f} ms {first['way']}; {speedups}"


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Every case, written to `out`; `quick` is a look at one tiny case."""
    rows = []
    for model, batches, rounds in QUICK_CASES if quick else CASES:
        for batch in batches:
            for mode in MODES:
                found = measure(Workload(model, batch, mode), rounds)
                rows += found
                say(_sentence(found))
    write_results(
        out,
        name="token-mixing",
        command="mixer bench token-mixing" + (" --quick" if quick else ""),
        settings={
            "threads": torch.get_num_threads(),
            "precision": "float32",
            "compiled": False,
            "reference": IN_USE,
            "training": "forward, cross-entropy, backward; no optimiser",
        },
        rows=rows,
    )
    return rows
