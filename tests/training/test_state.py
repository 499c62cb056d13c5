"""What is saved comes back, and what does not fit changes nothing."""

import pytest
import torch

from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import RunFailed, UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.recipe import Optimizer
from mixerkit.training.optimizer import kept_of_each, make_optimizers
from mixerkit.training.state import TrainingState, fresh_state
from tests.training.runs import RECIPE


@pytest.fixture
def run(run_path):
    with RunFolder.create(run_path, RECIPE) as run:
        yield run


def stepped(optimizers: int = 1) -> TrainingState:
    """A state after some updates by random gradients."""
    state = fresh_state(RECIPE)
    for _ in range(2):
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in state.optimizers:
            optimizer.step()
        state.average.update(state.model, state.step)
        state.step += 1
    return state


def copied(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


OPTIMIZER_TENSORS = [name for name in copied(stepped()) if name.startswith("optimizer.")]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_what_each_optimiser_keeps_is_known(name, momentum):
    """Held against what is there after a step."""
    model = MlpMixer(RECIPE.model)
    optimizers = make_optimizers(model, Optimizer(name=name, momentum=momentum))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
        kept = kept_of_each(optimizer)
        for parameter, state in optimizer.state.items():
            found = {key: value for key, value in state.items() if value is not None}
            assert found.keys() == kept.keys()
            for key, is_single in kept.items():
                assert found[key].shape == (() if is_single else parameter.shape)


def test_everything_comes_back(run):
    state = stepped()
    state.losses, state.left_out = [(0.5, 2.0)], [1]
    state.save(run, 2)
    other = fresh_state(RECIPE)
    assert other.restore(run)
    assert (other.step, other.losses, other.left_out) == (2, [(0.5, 2.0)], [1])
    found, wanted = other.tensors(), state.tensors()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_steps_that_are_still_to_be_left_out_do_not_count_as_made(run):
    """As after going back: of two steps, one was made, and the next ones will not be used."""
    state = stepped()
    state.left_out = [1, 3, 4]
    assert state.updates == 1
    state.save(run, 2)
    other = fresh_state(RECIPE)
    assert other.restore(run) and (other.updates, other.saved) == (1, 1)


def test_checkpoints_with_the_same_weights_count_as_one(run):
    state = stepped()
    for step, left_out in ((1, []), (2, []), (3, [3]), (4, [3, 4]), (5, [3, 4])):
        state.step, state.left_out = step, left_out
        state.save(run, 2)
    assert run.checkpoints.steps() == [4, 5]
    state.step, state.left_out = 6, [3, 4, 6]
    state.save(run, 2)
    assert run.checkpoints.steps() == [4, 6]


def test_one_checkpoint_is_kept_that_is_old_enough_to_go_back_to(run):
    state = stepped()
    for step in (2, 9, 12, 13, 14):
        state.step = step
        state.save(run, 2, reach=4)
    assert run.checkpoints.steps() == [9, 12, 13, 14]
    state.step = 18
    state.save(run, 2, reach=4)
    assert run.checkpoints.steps() == [14, 18]


def test_going_back_forgets_what_came_later(run):
    state = fresh_state(RECIPE)
    before = copied(state)
    state.save(run, 2)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for optimizer in state.optimizers:
        optimizer.step()
    state.restore(run)
    assert state.tensors().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


@pytest.mark.parametrize(
    "change",
    [
        {"model.head.weight": None},
        {"model.head.weight": torch.zeros(3, 3), "ema.head.bias": torch.zeros(1)},
        {"ema.head.bias": None, "model.stem.bias": None},
        {"model.more": torch.zeros(2)},
        {"model.stem.bias": torch.zeros(16, dtype=torch.float64)},
        {"optimizer.stem.bias.exp_avg": torch.zeros(3)},
        {"optimizer.stem.bias.exp_avg": None},
        {"optimizer.blocks.0.token_mixing.fc1.weight.momentum": None},
        dict.fromkeys(OPTIMIZER_TENSORS),
        {name: None for name in OPTIMIZER_TENSORS if name.endswith(".exp_avg_sq")},
        {"optimizer.nobody.momentum": torch.zeros(2)},
        {"model.stem.bias": torch.full((16,), float("nan"))},
    ],
    ids=lambda change: "+".join(list(change)[:2]),
)
def test_what_does_not_fit_is_listed_and_changes_nothing(run, change):
    tensors = copied(stepped())
    for name, tensor in change.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    run.save_checkpoint(2, tensors, {"step": 2, "losses": [], "left_out": []}, 2)
    state = stepped()
    before = copied(state)
    with pytest.raises(UserError) as error:
        state.restore(run)
    assert all(name in str(error.value) for name in change)
    assert state.tensors().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


@pytest.mark.parametrize("part", ["model", "optimizer", "ema"])
def test_poisoned_tensors_replace_nothing(run, part):
    state = stepped()
    state.save(run, 2)
    name = next(name for name in state.tensors() if name.startswith(part))
    state.tensors()[name].view(-1)[0] = float("nan")
    state.step += 1
    with pytest.raises(RunFailed, match=name):
        state.save(run, 2)
    assert run.checkpoints.steps() == [2]
