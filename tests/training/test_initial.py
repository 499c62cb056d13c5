"""Weights to start from: taken as they are, changed to fit, refused where they cannot."""

import re
import shutil
import signal
from dataclasses import replace

import pytest
import torch

import mixerkit
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import adapt
from mixerkit.spec import recipes
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Init
from mixerkit.training.initial import first_stage, initial_weights
from mixerkit.training.loop import train
from mixerkit.training.state import TrainingState
from tests.training.runs import RECIPE, StopAt, assert_same_end, final_tensors

NAMES = tuple("abcdefghij")


def stored(folder, config, names=()):
    """A model folder with random weights, the head's too, and what it holds."""
    model = MlpMixer(config)
    torch.nn.init.normal_(model.head.weight)
    preprocess = Preprocess(
        image_size=config.image_size, channels=config.in_channels, class_names=names,
        mean=(0.5,) * config.in_channels, std=(0.5,) * config.in_channels,
    )  # fmt: skip
    mixerkit.checkpoint.load.save_model(folder, model, preprocess, {})
    return str(folder), dict(model.state_dict())


@pytest.fixture
def source(tmp_path):
    return stored(tmp_path / "source", RECIPE.model, NAMES)


def started(source, **settings):
    return replace(RECIPE, init=Init(source, **settings))


def test_without_a_source_there_are_none():
    assert initial_weights(RECIPE, NAMES) == {}


def test_a_fresh_head_is_zeros_and_the_rest_as_stored(source):
    path, tensors = source
    found = initial_weights(
        replace(started(path), model=replace(RECIPE.model, head_bias=-2.0)), NAMES
    )
    assert found.keys() == tensors.keys()
    body = [name for name in tensors if not name.startswith("head.")]
    assert all(torch.equal(found[name], tensors[name]) for name in body)
    assert not found["head.weight"].any() and (found["head.bias"] == -2).all()


def test_a_kept_head_is_the_same(source):
    path, tensors = source
    found = initial_weights(started(path, head="kept"), NAMES)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((*NAMES[:9], "z"), "'z' is none of its classes"),
        (NAMES[::-1], "their order or number differs"),
        (NAMES[:3], "their order or number differs"),
    ],
)
def test_a_head_of_other_classes_is_not_kept(source, names, said):
    with pytest.raises(UserError, match=re.escape(said)):
        initial_weights(started(source[0], head="kept"), names)


@pytest.mark.parametrize("change", ["image_size", "patch_size", "in_channels"])
@pytest.mark.parametrize("enlargement", ["shared", "dense", "resample"])
def test_weights_are_changed_to_fit(source, change, enlargement):
    path, tensors = source
    wanted = {"image_size": 56, "patch_size": 14, "in_channels": 3}[change]
    config, expected = adapt(
        RECIPE.model, tensors, enlargement=enlargement, method="pinv", **{change: wanted}
    )
    recipe = started(path, enlargement=enlargement, method="pinv", head="kept")
    found = initial_weights(replace(recipe, model=config), NAMES)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_model_is_refused_setting_by_setting(source):
    recipe = started(source[0])
    other = replace(recipe.model, width=24, depth=3, gelu="tanh")
    with pytest.raises(UserError) as error:
        initial_weights(replace(recipe, model=other), NAMES)
    said = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert said == [
        "model.width: 16 in the weights, 24 in the recipe",
        "model.depth: 2 in the weights, 3 in the recipe",
        "model.gelu: 'erf' in the weights, 'tanh' in the recipe",
    ]


def test_rates_of_training_may_differ(source):
    recipe = started(source[0])
    other = replace(recipe.model, dropout=0.5, drop_path=0.0)
    assert initial_weights(replace(recipe, model=other), NAMES)


def test_a_variant_has_no_weights():
    with pytest.raises(UserError, match="B/16 is a variant, which has no stored weights"):
        initial_weights(started("B/16"), NAMES)


@pytest.mark.parametrize(("optimizer", "warned"), [("adamw", True), ("muon", True), ("sgd", False)])
def test_googles_imagenet_21k_wants_sgd(tmp_path, capsys, optimizer, warned):
    path, _ = stored(tmp_path / "21k", replace(RECIPE.model, num_classes=21_843))
    recipe = replace(started(path), optimizer=replace(RECIPE.optimizer, name=optimizer))
    initial_weights(recipe, NAMES)
    assert ("optimizer.name=sgd is better" in capsys.readouterr().err) == warned


# -- in a run ---------------------------------------------------------------------------------


def test_a_run_starts_from_them_and_its_average_too(tmp_path, source):
    path, tensors = source
    train(
        replace(
            started(path),
            duration="1 steps",
            schedule=replace(RECIPE.schedule, warmup="0 steps"),
            optimizer=replace(RECIPE.optimizer, lr=1e-9, adamw_lr=1e-9),
        ),
        tmp_path / "run",
    )
    kept = final_tensors(tmp_path / "run")
    for name, tensor in tensors.items():
        if not name.startswith("head."):
            torch.testing.assert_close(kept[f"model.{name}"], tensor, rtol=0, atol=1e-6)
            torch.testing.assert_close(kept[f"ema.{name}"], tensor, rtol=0, atol=1e-6)


def test_a_run_that_has_begun_needs_its_source_no_more(tmp_path, source):
    recipe = started(source[0])
    train(recipe, tmp_path / "straight")
    stop = StopAt(0, signal.SIGINT)
    assert train(recipe, tmp_path / "run", watch=stop).interrupted
    assert f"weights: {source[0]}, the head fresh" in stop.lines
    shutil.rmtree(source[0])
    train(recipe, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "straight", tmp_path / "run")


def test_what_cannot_be_a_start_is_refused_before_there_is_a_folder(tmp_path, source):
    with pytest.raises(UserError, match="nowhere"):
        train(started(str(tmp_path / "nowhere")), tmp_path / "run")
    narrow = variant("N/7", in_channels=1, num_classes=10)
    with pytest.raises(UserError, match="in the weights"):
        train(replace(started(source[0]), model=narrow), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_peer_brings_its_own_weights(tmp_path, source):
    with pytest.raises(UserError, match="init is for the recipe's own model"):
        train(started(source[0]), tmp_path / "run", model=MlpMixer(RECIPE.model))


def test_weights_are_read_again_where_a_run_was_killed_before_it_saved_them(
    tmp_path, source, monkeypatch
):
    recipe, run = started(source[0]), tmp_path / "run"
    train(recipe, tmp_path / "straight")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run)
    train(recipe, run, resume=True)
    assert_same_end(tmp_path / "straight", run)


# -- a recipe that is trained first -----------------------------------------------------------

STAGE = replace(RECIPE, name="stage", duration="1 epochs", threads=0)
GROWN = replace(
    RECIPE,
    name="grown",
    model=replace(RECIPE.model, image_size=42),
    data=replace(RECIPE.data, resize="shortest"),
    duration="1 epochs",
    init=Init(recipe="stage", head="kept"),
    seed=5,
)


@pytest.fixture
def stage(monkeypatch):
    def use(recipe=STAGE):
        monkeypatch.setitem(recipes.RECIPES, "stage", lambda: recipe)

    use()
    return use


def test_a_run_grows_from_the_recipe_that_it_names(tmp_path, stage):
    watch = StopAt(10**6, signal.SIGINT)
    train(GROWN, tmp_path / "grown", watch=watch)
    assert any(line.startswith("first:  stage, in ") for line in watch.lines)
    by_hand = replace(STAGE, seed=5, evaluate=replace(STAGE.evaluate, test=False))
    train(by_hand, tmp_path / "first")
    assert_same_end(tmp_path / "grown" / "start", tmp_path / "first")
    second = replace(GROWN, init=Init(str(tmp_path / "first"), head="kept"))
    train(second, tmp_path / "second")
    ours, theirs = final_tensors(tmp_path / "grown"), final_tensors(tmp_path / "second")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "grown" / "model").is_dir()


@pytest.mark.parametrize("stops", [[1], [9], [1, 9]])
def test_it_goes_on_in_whichever_part_it_was_stopped(tmp_path, stage, stops):
    train(GROWN, tmp_path / "straight")
    out = tmp_path / "run"
    for number, step in enumerate(stops):
        # progress is told of every part: the first step of the second has a lower number
        stop = StopAt(step, signal.SIGTERM) if step < 9 else StopInSecond()
        stopped = train(GROWN, out, resume=number > 0, watch=stop)
        assert stopped.interrupted == signal.SIGTERM
        assert (out / "stopped.json").exists()
    train(GROWN, out, resume=True)
    assert not (out / "stopped.json").exists()
    assert_same_end(tmp_path / "straight", out)
    assert_same_end(tmp_path / "straight" / "start", out / "start")


class StopInSecond(StopAt):
    """Stops as soon as the second part makes progress."""

    def __init__(self):
        super().__init__(10**6, signal.SIGTERM)

    def say(self, line):
        super().say(line)
        if line.endswith("the run itself begins"):
            self.step = 0


def test_a_run_is_verified_with_what_it_grew_from(tmp_path, stage):
    train(GROWN, tmp_path / "run")
    found = {part.name: part for part in verify_run(tmp_path / "run").parts}
    assert not found["start"].problem and found["start"].note == "trained first"
    weights = max((tmp_path / "run" / "start" / "checkpoints").iterdir()) / "tensors.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found = verify_run(tmp_path / "run")
    assert not found.sound
    assert weights.parent.name in next(p.problem for p in found.parts if p.name == "start")


def test_what_was_begun_needs_its_first_recipe_no_more(tmp_path, stage, monkeypatch):
    train(GROWN, tmp_path / "straight")
    assert train(GROWN, tmp_path / "run", watch=StopAt(1, signal.SIGTERM)).run == tmp_path / "run"
    monkeypatch.delitem(recipes.RECIPES, "stage")
    train(GROWN, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "straight", tmp_path / "run")
    train(GROWN, tmp_path / "run", resume=True)  # finished: nothing is left to do


def test_the_first_recipe_reads_images_as_the_run_does(tmp_path, stage):
    data = replace(GROWN.data, max_unreadable=0.3, patience=7.0, memory=0.5, workers=3)
    found = first_stage(replace(GROWN, data=data))
    assert replace(found.data, resize=data.resize) == data
    assert (found.seed, found.evaluate.test) == (5, False)


def test_a_first_recipe_that_cannot_begin_is_refused_before_anything_is_written(tmp_path, stage):
    stage(replace(STAGE, batch_size=10**6, accumulation=1))
    with pytest.raises(UserError, match="batch_size 1000000 is larger"):
        train(GROWN, tmp_path / "run")
    stage(replace(STAGE, duration="2 steps", schedule=replace(STAGE.schedule, warmup="2 steps")))
    with pytest.raises(UserError, match="must be shorter than the run"):
        train(GROWN, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_cannot_be_grown_is_refused_before_anything_is_written(tmp_path, stage):
    stage(replace(STAGE, model=replace(STAGE.model, depth=3)))
    with pytest.raises(UserError, match=r"model\.depth: 3 in the weights, 2 in the recipe"):
        train(GROWN, tmp_path / "run")
    stage(GROWN)
    with pytest.raises(UserError, match="only one may"):
        train(GROWN, tmp_path / "run")
    with pytest.raises(UserError, match="Did you mean 'stage'"):
        train(replace(GROWN, init=Init(recipe="stag")), tmp_path / "run")
    with pytest.raises(UserError, match="name two beginnings"):
        Init("a", "b")
    assert not (tmp_path / "run").exists()
