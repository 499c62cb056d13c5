"""Checkpoints as models: which one a name means, with which weights, and what comes along."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint import load as loading
from mixerkit.checkpoint.checkpoints import Checkpoints
from mixerkit.checkpoint.find import find
from mixerkit.checkpoint.load import load, load_weights
from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import preprocess_for
from mixerkit.spec.recipe import Data
from tests.checkpoint.conftest import TINY, flip_bit, row_of

NAMES = ["ant", "bee", "cat"]
ACCURACIES = {1: 0.9, 2: 0.5, 3: 0.7}


def weights_of(step: int, part: str) -> dict[str, torch.Tensor]:
    """Random weights of the tiny model, other ones for every step and part."""
    torch.manual_seed(100 * step + len(part))
    shapes = MlpMixer(TINY).state_dict()
    return {f"{part}{name}": torch.randn(tensor.shape) for name, tensor in shapes.items()}


def save(run: RunFolder, step: int, accuracy: float | None) -> None:
    run.log(row_of(step))
    tensors = weights_of(step, "model.") | {"optimizer.0.momentum": torch.ones(5)}
    if run.recipe().ema:
        tensors |= weights_of(step, "ema.")
    run.save_checkpoint(step, tensors, {"validation": accuracy}, keep=3)


@pytest.fixture
def stopped(run_path: Path, recipe) -> Path:
    """A run without a model, with checkpoints of steps 1, 2 and 3, of which 1 is the best."""
    recipe = replace(recipe, data=Data(source="photos", resize="shortest", mean=(0.3,)))
    with RunFolder.create(run_path, recipe) as run:
        run.save_choices({"classes": NAMES})
        for step, accuracy in ACCURACIES.items():
            save(run, step, accuracy)
    return run_path


def assert_is(model: MlpMixer, step: int, part: str = "model.") -> None:
    wanted = weights_of(step, part)
    found = model.state_dict()
    assert found.keys() == {name.removeprefix(part) for name in wanted}
    assert all(torch.equal(found[name.removeprefix(part)], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("which", "step"), [("@newest", 3), ("@best", 1), ("@2", 2), ("/checkpoints/step-00000002", 2)]
)
@pytest.mark.parametrize("kind", [str, Path])
def test_every_name_of_a_checkpoint(stopped: Path, which: str, step: int, kind):
    model = load(kind(f"{stopped}{which}"))
    assert_is(model, step)
    assert model.about["step"] == step and model.about["validation"]["top1"] == ACCURACIES[step]
    with RunFolder.open(stopped) as run:
        assert model.preprocess == preprocess_for(run.recipe(), NAMES)
    assert not model.training and model.preprocess.class_names == tuple(NAMES)


def test_the_file_of_a_checkpoint_and_a_copy_of_its_folder_do_too(stopped: Path, tmp_path: Path):
    folder = stopped / "checkpoints" / "step-00000002"
    assert_is(load(folder / "tensors.safetensors"), 2)
    assert_is(load(folder.rename(tmp_path / "mine")), 2)


def test_averaged_weights_are_those_that_count(run_path: Path, recipe):
    with RunFolder.create(run_path, replace(recipe, ema=0.9)) as run:
        save(run, 1, None)
    assert_is(load(f"{run_path}@newest"), 1, "ema.")
    assert load(f"{run_path}@newest").preprocess.class_names == ()  # none was stored


def test_weights_go_into_a_model_that_exists(stopped: Path):
    model = MlpMixer(TINY)
    load_weights(model, f"{stopped}@2")
    assert_is(model, 2)


def test_a_larger_image_and_other_classes_as_of_any_model(stopped: Path):
    model = load(f"{stopped}@best", image_size=16, num_classes=2)
    assert model.config.image_size == 16 and model.config.num_classes == 2


def test_damaged_ones_are_passed_over_and_named(stopped: Path, capsys):
    flip_bit(stopped / "checkpoints/step-00000003/tensors.safetensors", 5000)
    flip_bit(stopped / "checkpoints/step-00000001/recipe.yaml", 50)
    assert_is(load(f"{stopped}@newest"), 2)
    assert "step-00000003/tensors.safetensors was changed" in capsys.readouterr().err
    assert_is(load(f"{stopped}@best"), 2)
    assert "step-00000001/recipe.yaml was changed" in capsys.readouterr().err
    with pytest.raises(UserError, match="step-00000003/tensors"):
        load(f"{stopped}@3")
    flip_bit(stopped / "checkpoints/step-00000002/state.json", 50)
    with pytest.raises(UserError, match=r"No checkpoint in .* can be used") as raised:
        load(f"{stopped}@newest")
    assert str(raised.value).count("was changed") == 3


def rename(run: Path, step: int, to: int) -> None:
    folder = run / "checkpoints"
    (folder / f"step-{step:08d}").rename(folder / f"step-{to:08d}")


def test_a_checkpoint_under_another_name_is_not_taken_for_that_step(stopped: Path, capsys):
    rename(stopped, 2, 12)
    for name in ("@12", "/checkpoints/step-00000012"):
        with pytest.raises(UserError, match=r"step-00000012 is not the checkpoint of step 12"):
            load(f"{stopped}{name}")
    assert_is(load(f"{stopped}@newest"), 3)
    assert "step-00000012 is not the checkpoint of step 12" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_not_taken_for_this_ones(stopped: Path, tmp_path, recipe):
    with RunFolder.create(tmp_path / "other", recipe) as other:
        save(other, 9, 0.95)
    folder = stopped / "checkpoints/step-00000009"
    (tmp_path / "other/checkpoints/step-00000009").rename(folder)
    for name in (f"{stopped}@9", folder):
        with pytest.raises(UserError, match="made by another recipe than this run's"):
            load(name)
    assert_is(load(f"{stopped}@newest"), 3)
    assert_is(load(f"{stopped}@best"), 1)


def test_checkpoints_are_models_where_the_runs_small_files_are_lost(stopped: Path):
    for name in ("recipe.yaml", "manifest.json"):
        (stopped / name).unlink()
        assert_is(load(f"{stopped}@newest"), 3)


@pytest.mark.parametrize("reader", [(Checkpoints, "state"), (loading, "read_tensors_of")])
@pytest.mark.parametrize(("which", "step"), [("newest", 3), ("best", 1)])
def test_what_is_pruned_between_choosing_and_reading_is_chosen_anew(
    stopped: Path, monkeypatch, capsys, reader, which, step
):
    """The run goes on: a better step 4 takes the place of the one that is just read."""
    read = getattr(*reader)

    def late(*arguments):
        monkeypatch.undo()
        with RunFolder.open(stopped, writing=True) as run:
            save(run, 4, 0.95)
        shutil.rmtree(stopped / f"checkpoints/step-0000000{step}", ignore_errors=True)
        return read(*arguments)

    monkeypatch.setattr(*reader, late)
    assert_is(load(f"{stopped}@{which}"), 4)
    assert capsys.readouterr().err == ""


def test_a_step_that_is_pruned_meanwhile_is_said_to_be_gone(stopped: Path, monkeypatch):
    state = Checkpoints.state

    def late(checkpoints, step):
        shutil.rmtree(checkpoints.at(step), ignore_errors=True)
        return state(checkpoints, step)

    monkeypatch.setattr(Checkpoints, "state", late)
    with pytest.raises(UserError, match="has no checkpoint of step 2: say"):
        load(f"{stopped}@2")


def test_names_of_no_checkpoint_are_told_from_those_there_are(
    stopped: Path, run_path: Path, recipe
):
    for which in ("7", "latest", "", "²"):
        with pytest.raises(UserError) as raised:
            find(f"{stopped}@{which}")
        names = ", ".join(f"{stopped}@{name}" for name in ("newest", "best", 1, 2, 3))
        assert f"say {names}." in str(raised.value)
    with pytest.raises(UserError, match="leave native_size out"):
        load(f"{stopped}@best", native_size=8)
    with pytest.raises(UserError, match="No model 'nowhere@best'"):
        load("nowhere@best")


def test_without_figures_none_is_the_best(run_path: Path, recipe):
    with RunFolder.create(run_path, recipe) as run:
        with pytest.raises(UserError, match="holds no checkpoint yet"):
            load(f"{run_path}@newest")
        save(run, 1, None)
    with pytest.raises(UserError, match=r"measured on held-out images.*@newest"):
        load(f"{run_path}@best")


def test_a_run_without_a_model_says_what_can_be_named(stopped: Path):
    with pytest.raises(
        UserError, match=f"{stopped}@newest and {stopped}@best name its checkpoints"
    ):
        load(stopped)


def test_weights_of_a_peer_are_not_taken_for_ours(run_path: Path, recipe):
    """timm's names and shapes are those of its own model, which computes another GELU."""
    theirs = {"stem.proj.weight": torch.zeros(6, 1, 4, 4), "norm.weight": torch.zeros(6)}
    with RunFolder.create(run_path, recipe) as run:
        run.log(row_of(1))
        named = {f"model.{name}": tensor for name, tensor in theirs.items()}
        run.save_checkpoint(1, named, {}, keep=2)
    with pytest.raises(UserError, match="another model than our Mixer"):
        load(f"{run_path}@newest")


def test_a_damaged_model_says_what_makes_it_again(stopped: Path, model, preprocess):
    with RunFolder.open(stopped, writing=True) as run:
        run.save_model(model, preprocess, {})
    assert load(stopped)
    for damage in (lambda path: flip_bit(path, 5000), Path.unlink):
        damage(stopped / "model" / "model.safetensors")
        with pytest.raises(UserError, match=r"model\.safetensors .* makes it again") as raised:
            load(stopped)
        assert f"`mixer train --resume {stopped}`" in str(raised.value)
        assert_is(load(f"{stopped}@newest"), 3)
