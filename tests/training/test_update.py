"""One optimiser step: what it changes, and what it must not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import Batch
from mixerkit.errors import RunFailed, UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.recipe import Loss, Optimizer, Recipe, Schedule
from mixerkit.training.loss import TargetLoss
from mixerkit.training.optimizer import make_optimizers
from mixerkit.training.setup import Steps
from mixerkit.training.state import TrainingState
from mixerkit.training.update import Update

CONFIG = MixerConfig(
    image_size=8, patch_size=4, in_channels=1, width=8, depth=2, token_width=4, channel_width=16,
    num_classes=3,
)  # fmt: skip
RECIPE = Recipe(
    model=CONFIG,
    batch_size=8,
    optimizer=Optimizer(lr=0.1, weight_decay=0.5, adamw_lr=0.01),
    schedule=Schedule(warmup="0 steps", decay="constant"),
)
STEPS = Steps(10, 10, 0, 1, 10, 10)


def make(recipe: Recipe) -> Update:
    torch.manual_seed(0)
    model = MlpMixer(recipe.model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    state = TrainingState(model, make_optimizers(model, recipe.optimizer), None)
    return Update(recipe, STEPS, TargetLoss(recipe.loss, np.array([10, 30, 80])), state)


def batch(scale: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = scale * torch.randn(8, 1, 8, 8, generator=generator)
    return Batch(images, torch.eye(3)[torch.arange(8) % 3])


def weights(update: Update) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in update.state.model.named_parameters()}


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_weight_decay_touches_kernels_only(name: str) -> None:
    """With zero gradients, what moves is decay alone: kernels by exactly 1 − lr·decay a step."""
    update = make(replace(RECIPE, optimizer=replace(RECIPE.optimizer, name=name)))
    before, model = weights(update), update.state.model
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(5):
        for optimizer in update.state.optimizers:
            optimizer.step()
    for n, p in model.named_parameters():
        hidden = n.startswith("blocks.") and p.ndim == 2
        rate = 0.01 if name == "muon" and not hidden else 0.1
        factor = (1 - rate * 0.5) ** 5 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[n] * factor, msg=n)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_gives_the_whole_batchs_gradient(parts: int, weights: str, kind: str) -> None:
    recipe = replace(RECIPE, loss=Loss(kind=kind, class_weights=weights, label_smoothing=0.1))
    whole = make(recipe)
    cut = make(replace(recipe, accumulation=parts))
    assert whole._backward(batch()) == pytest.approx(cut._backward(batch()), rel=1e-5)
    for a, b in zip(whole.state.model.parameters(), cut.state.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_stochastic_depth_is_the_same_however_the_batch_is_divided(parts, checkpointing):
    model = replace(CONFIG, drop_path=0.7, depth=4)
    whole, cut = (
        make(replace(RECIPE, model=model)),
        make(replace(RECIPE, model=model, accumulation=parts)),
    )
    cut.state.model.activation_checkpointing = checkpointing
    for update in (whole, cut):
        update.state.model.train()
    for step in range(3):
        whole.state.step = cut.state.step = step
        assert whole._backward(batch()) == pytest.approx(cut._backward(batch()), rel=1e-5)
        for a, b in zip(whole.state.model.parameters(), cut.state.model.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_stochastic_depth_is_drawn_for_each_step_and_image() -> None:
    update = make(replace(RECIPE, model=replace(CONFIG, drop_path=0.7, depth=4)))
    model, seen = update.state.model.train(), []
    for step in range(4):
        update.state.step = step
        with update._dropping(update.micro_batches(batch())[0]):
            seen.append(torch.stack([block.token_drop.draws for block in model.blocks]))
        assert model.blocks[0].token_drop.draws is None
    drawn = torch.stack(seen)
    assert drawn.shape == (4, 4, 8) and len(drawn.unique()) == drawn.numel()
    assert 0.3 < drawn.mean() < 0.7


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    update = make(RECIPE)
    update(batch())
    before = weights(update)
    tensors = {n: t.clone() for n, t in update.state.tensors().items()}
    with pytest.raises(RunFailed, match="step 2"):
        update(batch(scale=float("nan")))
    assert update.state.step == 1
    for n, t in update.state.tensors().items():
        assert torch.equal(t, tensors[n]), n
    assert all(torch.equal(p, before[n]) for n, p in weights(update).items())


@pytest.mark.parametrize("stopped", [False, True])
def test_buffers_are_put_back_too(stopped: bool) -> None:
    """A peer's running means take in every batch that they see, also one with NaNs."""
    update = make(RECIPE)
    update.state.model = update.forward = torch.nn.Sequential(
        torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    )
    before = {name: buffer.clone() for name, buffer in update.state.model.named_buffers()}
    error = KeyboardInterrupt if stopped else RunFailed
    if stopped:
        polls = iter([None, None, error])
        update.recipe = replace(RECIPE, accumulation=4)

        def poll() -> None:
            if raised := next(polls):
                raise raised

        update.poll = poll
    with pytest.raises(error):
        update(batch(scale=1.0 if stopped else float("nan")))
    for name, buffer in update.state.model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_clipping_scales_the_gradient_and_reports_the_norm_before() -> None:
    free = make(RECIPE)
    free._backward(batch())
    norm = free._clip()
    gradients = [p.grad for p in free.state.model.parameters()]
    assert norm == pytest.approx(sum(float((g.double() ** 2).sum()) for g in gradients) ** 0.5)
    clipped = make(replace(RECIPE, optimizer=replace(RECIPE.optimizer, clip=norm / 4)))
    clipped._backward(batch())
    assert clipped._clip() == pytest.approx(norm)
    for p, g in zip(clipped.state.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g / 4, rtol=1e-4, atol=1e-7)


SHARP = replace(RECIPE, optimizer=Optimizer("sgd", lr=0.1, weight_decay=0, momentum=0, sam=0.7))


@pytest.mark.parametrize("parts", [1, 4])
def test_sam_takes_the_gradient_up_the_slope(parts: int) -> None:
    """Plain SGD on the gradient at w + ρ·g/‖g‖, worked out by autograd alone in float64."""
    update = make(replace(SHARP, accumulation=parts))
    before, model = weights(update), update.state.model.double()
    images, targets = batch().images.double(), batch().targets.double()

    def gradients(at: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        leaves = {n: p.detach().clone().requires_grad_() for n, p in at.items()}
        logits = torch.func.functional_call(model, leaves, images)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        found = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    w = {n: p.double() for n, p in before.items()}
    g = gradients(w)
    norm = torch.cat([one.flatten() for one in g.values()]).norm()
    uphill = gradients({n: p + 0.7 * g[n] / norm for n, p in w.items()})
    assert max(float((uphill[n] - g[n]).abs().max()) for n in g) > 1e-3
    update = make(replace(SHARP, accumulation=parts))
    update(batch())
    for n, p in weights(update).items():
        torch.testing.assert_close(p.double(), w[n] - 0.1 * uphill[n], rtol=1e-4, atol=1e-6, msg=n)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_sam_leaves_the_weights_alone_when_it_is_stopped_or_fails(at: int) -> None:
    update = make(replace(SHARP, accumulation=2))
    before, calls = weights(update), []

    def poll() -> None:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt

    update.poll = poll
    with pytest.raises(KeyboardInterrupt):
        update(batch())
    assert all(torch.equal(p, before[n]) for n, p in weights(update).items())
    with pytest.raises(RunFailed, match="step 1"):
        update(batch(scale=float("inf")))
    assert all(torch.equal(p, before[n]) for n, p in weights(update).items())
    assert all(p.grad is None for p in update.state.model.parameters())


def test_both_gradients_of_sam_see_the_same_dropout() -> None:
    recipe = replace(SHARP, model=replace(CONFIG, dropout=0.5))
    seen: list[torch.Tensor] = []
    update = make(recipe)
    dropout = update.state.model.blocks[0].channel_mixing.drop
    dropout.register_forward_hook(lambda _, __, out: seen.append(out == 0))
    update.state.model.train()
    update(batch())
    assert len(seen) == 4 and seen[0].any()  # the dropout stands twice in its block
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_bfloat16_trains() -> None:
    update = make(replace(RECIPE, precision="bfloat16"))
    seen: list[torch.dtype] = []
    update.state.model.head.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    update(batch())
    assert seen == [torch.bfloat16]
    losses = [update(batch())[0] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_a_model_with_another_number_of_outputs_is_refused() -> None:
    update = make(RECIPE)
    with pytest.raises(UserError, match="one output for each class"):
        update(Batch(batch().images, torch.eye(4)[torch.arange(8) % 4]))


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    update = make(RECIPE)
    with RunFolder.create(tmp_path / "run", RECIPE) as run:
        update.state.save(run, keep=2)
        with torch.no_grad():
            update.state.model.head.weight[0, 0] = float("nan")
        update.state.step = 1
        with pytest.raises(RunFailed, match=r"head\.weight"):
            update.state.save(run, keep=2)
        assert run.checkpoints.steps() == [0]
