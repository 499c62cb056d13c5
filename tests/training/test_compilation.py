"""When torch.compile is tried, and what happens when it fails."""

import pytest
import torch
from torch import nn

from mixerkit.errors import UserError
from mixerkit.training import compilation
from mixerkit.training.compilation import choose_compile


def step(model: nn.Module) -> torch.Tensor:
    return model(torch.ones(2, 4)).square().sum()


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(4, 3)


def test_off_is_off(model: nn.Module) -> None:
    assert choose_compile("off", model, step, 10**9)[0] is False


def test_on_without_a_compiler_is_refused(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "has_compiler", lambda: False)
    with pytest.raises(UserError, match="compile=off"):
        choose_compile("on", model, step, 10)


def test_a_short_run_does_not_try_and_leaves_the_model_alone(model: nn.Module) -> None:
    before = model.weight.clone()
    chosen, why = choose_compile("auto", model, step, 10)
    assert not chosen and "cannot repay" in why
    assert torch.equal(model.weight, before) and model.weight.grad is None


@pytest.mark.parametrize(("speed", "expected"), [(0.5, True), (0.99, False), (2.0, False)])
def test_a_long_run_keeps_what_was_faster(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, speed: float, expected: bool
) -> None:
    times = iter([1.0, speed])
    monkeypatch.setattr(compilation, "_step_seconds", lambda *_: next(times))
    monkeypatch.setattr(compilation, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda model: model)
    assert choose_compile("auto", model, step, 1000)[0] is expected


def test_a_compiler_that_fails_turns_it_off_and_says_why(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module) -> nn.Module:
        raise RuntimeError("no such header")

    monkeypatch.setattr(compilation, "WORTH_TRYING_SECONDS", 0.0)
    monkeypatch.setattr(compilation, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", broken)
    chosen, why = choose_compile("auto", model, step, 10)
    assert not chosen and "no such header" in why
