"""Seconds of one Muon update of the demo model's hidden matrices: ours against torch's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixerkit.benchmark.workload import Workload
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.recipes import recipe
from mixerkit.timer import compare, interleave
from mixerkit.training.muon import Muon
from mixerkit.training.optimizer import is_hidden_matrix

Say = Callable[[str], None]


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Time the two optimisers and the forward and backward pass that precede them; write `out`."""
    base = recipe("fashion-demo")
    step = Workload("demo", base.batch_size, "training").call(MlpMixer(base.model))
    ours, torchs = _matrices(MlpMixer(base.model)), _matrices(MlpMixer(base.model))
    rounds = 3 if quick else 30
    seconds = interleave(
        {
            "torch.optim.Muon": torch.optim.Muon(torchs, lr=1e-4).step,
            "mixerkit Muon": Muon(ours, lr=1e-4).step,
            "forward and backward pass": step,
        },
        rounds=rounds,
    )
    rows: list[dict[str, Any]] = [
        {"what": what, "seconds": found.seconds, "speedup_over_torch": found.speedup}
        for what, found in compare(seconds, "torch.optim.Muon").items()
    ]
    for row in rows:
        say(f"{row['what']:28}{1000 * row['seconds']:8.2f} ms")
    write_results(
        out,
        name="optimizers",
        command="mixer bench optimizers" + (" --quick" if quick else ""),
        settings={"recipe": base.name, "rounds": rounds, "threads": torch.get_num_threads()},
        rows=rows,
    )
    return rows


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that Muon takes, each with a gradient."""
    found = [p for name, p in model.named_parameters() if is_hidden_matrix(name, p)]
    for parameter in found:
        parameter.grad = torch.randn_like(parameter)
    return found
