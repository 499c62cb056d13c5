"""What a training step takes: fresh processes, the same optimiser on both sides."""

import pytest

from mixerkit.results import read_results
from mixerkit.study.training_memory import BATCH, IN_QUICK, noise, recipe_of, study, timm_step


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


def test_timm_takes_a_step_of_the_same_kind():
    recipe = recipe_of("S/32", 1, True)
    assert noise(recipe).images.shape == (BATCH, 3, 224, 224)
    assert timm_step(recipe)() is None
