"""What a training step takes: fresh processes, the same optimiser on both sides."""

from dataclasses import replace

import pytest
import torch

from mixerkit.results import read_results
from mixerkit.study.training_memory import (
    FULL,
    IN_QUICK,
    Contender,
    noise,
    our_step,
    study,
    timm_step,
)


@pytest.mark.slow
def test_a_short_study(tmp_path):
    said = []
    rows = study(tmp_path / "memory.json", said.append, quick=True)
    assert read_results(tmp_path / "memory.json")["rows"] == rows
    assert [row["contender"] for row in rows] == list(IN_QUICK) and len(said) == len(rows)
    by_name = {row["contender"]: row for row in rows}
    assert by_name["timm"]["memory_over_timm"] == by_name["timm"]["time_over_timm"] == 1
    # weights, gradients and two moments of S/32 alone
    assert all(row["peak_growth_bytes"] > 4 * 4 * 19_000_000 for row in rows)
    whole, quarters = by_name["mixerkit"], by_name["mixerkit, 4 micro-batches"]
    assert quarters["peak_growth_bytes"] < whole["peak_growth_bytes"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_take_a_step_of_the_same_kind(checkpointing, monkeypatch):
    """Their models move as far, by the same kind of optimiser with the same settings."""
    made = []

    class Noted(torch.optim.AdamW):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            made.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    recipe = Contender("mixerkit", checkpointing=checkpointing).recipe(FULL)
    recipe = replace(recipe, model=replace(recipe.model, width=16, depth=2))
    assert noise(recipe).images.shape == (FULL.batch_size, 3, 224, 224)
    for step_of in (our_step, timm_step):
        step = step_of(recipe)
        kernels = [p for group in made[-1].param_groups for p in group["params"] if p.ndim >= 2]
        before = [p.detach().clone() for p in kernels]
        step()
        assert any(not torch.equal(p, b) for p, b in zip(kernels, before, strict=True))
    ours, timms = made
    assert (ours.defaults["lr"], ours.defaults["betas"]) == (
        timms.defaults["lr"],
        timms.defaults["betas"],
    )
    sizes = [sum(p.numel() for g in one.param_groups for p in g["params"]) for one in made]
    assert sizes[0] == sizes[1]
