"""The arithmetic of the study, on trials made by hand."""

import pytest

from mixerkit.spec.recipes import recipe
from mixerkit.study import time_to_accuracy
from mixerkit.study.time_to_accuracy import Trial, measure, median_or_none, merit


def test_a_median_with_runs_that_never_arrive() -> None:
    assert median_or_none([3.0, None, 1.0]) == 3.0
    assert median_or_none([None, None, 1.0]) is None


def test_the_best_rate_reaches_most_then_soonest() -> None:
    soon = Trial(0.905, 60, (5.0, 20.0, None))
    late = Trial(0.909, 60, (4.0, 30.0, None))
    far = Trial(0.911, 60, (9.0, 40.0, 55.0))
    assert sorted([late, far, soon], key=merit) == [late, soon, far]


def test_speed_ups_are_ratios_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(contender, seed, targets):
        if contender.recipe.duration == "16 epochs":
            return Trial(0.915, 120, (20.0, 28.0, 90.0))
        if contender.name == "mixerkit":
            return Trial(0.92, 60, (2.0 + seed, 10.0, 20.0))
        good = contender.recipe.optimizer.lr == 1e-3
        factor = 3.0 if contender.peer else 2.0
        return Trial(0.90, 60, (factor * 3.0, 30.0 if good else 50.0, None))

    monkeypatch.setattr(time_to_accuracy, "try_once", trial)
    lines: list[str] = []
    ours, timm, own, longer = measure(recipe("fashion-demo"), (0, 1, 2), lines.append)
    assert ours["all_seconds_to_88"] == [2.0, 3.0, 4.0]
    assert ours["speedup_over_timm_88"] == 3.0  # 9 over the median of 2, 3, 4
    assert ours["speedup_over_timm_90"] == 2.8  # the longer run is timm's quickest there
    assert ours["speedup_over_timm_91"] == 4.5 and timm["speedup_over_timm_91"] is None
    assert longer["contender"] == "timm, AdamW, 16 epochs" and longer["duration"] == "16 epochs"
    assert timm["learning_rate"] == own["learning_rate"] == 1e-3
    assert timm["seeds"] == 3 and own["speedup_over_timm_88"] == 1.5
    assert len(lines) == 6 + 3 + 2 + 2 + 3  # six rates, then each contender's remaining seeds
