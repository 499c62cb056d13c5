"""The reader of settings: what it does not understand is an error that helps."""

import contextlib
import dataclasses
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from mixerkit.errors import UserError
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment, Data, Optimizer, Recipe, Schedule
from mixerkit.spec.recipes import RECIPES, recipe
from mixerkit.spec.strict import from_dict, read_yaml, to_dict, write_yaml


def read(text: str, tmp_path) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return recipe(str(path))


WRONG = {
    "optimiser: {lr: 0.1}": "Unknown setting 'optimiser'. Did you mean 'optimizer'?",
    "optimizer: {learning_rate: 1}": "Unknown setting 'optimizer.learning_rate'",
    "optimizer: {wieght_decay: 1}": "Did you mean 'weight_decay'?",
    "model: {widht: 64}": "Unknown setting 'model.widht'. Did you mean 'width'?",
    "batch_size: large": "batch_size must be a whole number, found 'large'",
    "batch_size: 12.5": "batch_size must be a whole number, found 12.5",
    "batch_size: true": "batch_size must be a whole number, found True",
    "batch_size: '12'": "batch_size must be a whole number, found '12'",
    "batch_size:": "batch_size must be a whole number, found None",
    "ema: yes": "ema must be a number, found True",
    "ema: .nan": "ema must be a number, found nan",
    "optimizer: {lr: 1e999}": "optimizer.lr must be a number, found '1e999'",
    f"optimizer: {{lr: 1{'0' * 400}}}": "optimizer.lr must be a number, found 1000",
    "optimizer: {lr: [1]}": "optimizer.lr must be a number, found [1]",
    "optimizer: {name: adam}": "one of adamw, sgd, muon, found 'adam'. Did you mean 'adamw'?",
    "optimizer: {name: 7}": "must be one of adamw, sgd, muon, found 7",
    "optimizer: {betas: [0.9]}": "optimizer.betas must be a list of 2 (a number each)",
    "optimizer: {betas: [0.9, x]}": "optimizer.betas[1] must be a number, found 'x'",
    "optimizer: {betas: 0.9}": "optimizer.betas must be a list of 2",
    "optimizer: fast": "optimizer must be a mapping of settings, found 'fast'",
    "data: {mean: 0.5}": "data.mean must be a list (a number each), found 0.5",
    "activation_checkpointing: 1": "activation_checkpointing must be true or false, found 1",
    "name: 12": "name must be a text, found 12",
    "model: {image_size: 28.0}": "model.image_size must be a whole number or a list of 2",
    "model: {image_size: [28]}": "model.image_size must be a whole number or a list of 2",
    "model: B-16": "Unknown model variant 'B-16'",
    "model: {variant: Z/16}": "Unknown model variant 'Z/16'",
    "model: {variant: B/16, dept: 3}": "Unknown setting 'model.dept'. Did you mean 'depth'?",
    "extends: fashion-dem": "Unknown recipe to extend 'fashion-dem'. Did you mean 'fashion-demo'?",
    "extends: [fashion-demo]": "Unknown recipe to extend",
    "seed: 1\nseed: 2": "line 1, column 1: 'seed' is given twice",
    "model: {depth: 2, depth: 3}": "'depth' is given twice",
    "on: 3": "Unknown setting 'True'",
    "? [a]\n: 1": "",
    "[1, 2": "line 1",
    "model: {depth: 2": "line 1",
    "\tname: x": "line 1",
    "just words": "must hold settings as 'key: value' lines, found 'just words'",
    "": "must hold settings as 'key: value' lines, found None",
    "name: !!python/object/apply:os.system [x]": "could not determine a constructor",
    "name: 2024-13-45": "is not valid YAML",
    "[" * 1500: "",
    "name: \0": "",
    "duration: 10": "duration must be a text",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_what_is_not_understood_is_an_error_that_names_the_file(text, tmp_path):
    with pytest.raises(UserError) as caught:
        read(text, tmp_path)
    assert WRONG[text] in str(caught.value)
    assert str(tmp_path / "mine.yaml") in str(caught.value) or text.startswith("extends")
    assert len(str(caught.value)) < 1000


def test_a_bomb_of_aliases_is_refused_in_short(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(UserError, match="Unknown setting 'a0'"):
        read("\n".join(lines), tmp_path)
    values = yaml.safe_load("\n".join(lines))
    with pytest.raises(UserError, match="name must be a text") as caught:
        from_dict(Recipe, {"name": values["a59"]})
    assert len(str(caught.value)) < 1000


def test_unreadable_files_are_errors(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        recipe(str(tmp_path / "latin.yaml"))
    with pytest.raises(UserError, match=r"No recipe file .*gone\.yaml.*Named recipes: fashion"):
        recipe(str(tmp_path / "gone.yaml"))
    with pytest.raises(UserError, match="Cannot read"):
        read_yaml(tmp_path)
    with pytest.raises(
        UserError, match=r"Unknown recipe 'fashion-dmeo'\. Did you mean 'fashion-demo'"
    ):
        recipe("fashion-dmeo")


@pytest.mark.parametrize(
    "word, expected",
    [("on", "on"), ("off", "off"), ("yes", "on"), ("no", "off"), ("auto", "auto"), ("'on'", "on")],
)
def test_on_and_off_mean_the_texts_although_yaml_reads_booleans(word, expected, tmp_path):
    assert read(f"compile: {word}", tmp_path).compile == expected


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("2", 2.0), ("0.5", 0.5), ("1E2", 100.0)])
def test_numbers_may_be_written_as_people_write_them(text, value, tmp_path):
    found = read(f"optimizer: {{lr: {text}}}", tmp_path).optimizer.lr
    assert (found, type(found)) == (value, float)


def test_extends_gives_only_what_differs(tmp_path):
    found = read("extends: fashion-demo\noptimizer: {lr: 0.01}\nmodel: {depth: 2}", tmp_path)
    base = recipe("fashion-demo")
    assert found == dataclasses.replace(
        base,
        optimizer=dataclasses.replace(base.optimizer, lr=0.01),
        model=dataclasses.replace(base.model, depth=2),
    )


def test_a_variant_may_stand_for_a_model(tmp_path):
    assert read("model: S/16", tmp_path).model == variant("S/16")
    text = "model: {variant: N/4, in_channels: 1, image_size: [28, 56]}"
    assert read(text, tmp_path).model == variant("N/4", in_channels=1, image_size=(28, 56))


def test_settings_keep_their_defaults(tmp_path):
    assert read("name: mine", tmp_path) == Recipe(name="mine")


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_survives_yaml(name, tmp_path):
    assert read(write_yaml(recipe(name)), tmp_path) == recipe(name)
    assert recipe(name).name == name


def test_a_run_folder_is_a_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(write_yaml(recipe("photos-64")), encoding="utf-8")
    assert recipe(str(tmp_path)) == recipe("photos-64")


positive = st.floats(1e-9, 1e9)
share = st.floats(0, 1, exclude_max=True)
durations = st.builds(
    "{} {}".format, st.integers(1, 10**9), st.sampled_from(["epochs", "steps", "samples"])
)
models = st.builds(
    MixerConfig,
    image_size=st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda n: (n[0] * 4, n[1] * 6)),
    patch_size=st.sampled_from([(4, 6), (2, 2), (1, 3), 1]),
    width=st.integers(1, 10**6),
    norm=st.booleans(),
    gelu=st.sampled_from(["tanh", "erf"]),
    drop_path=share,
    head_bias=st.floats(-1e9, 1e9),
)
recipes = st.builds(
    Recipe,
    name=st.text(st.characters(codec="utf-8"), max_size=200),
    model=models,
    data=st.builds(Data, mean=st.lists(positive, min_size=1, max_size=4).map(tuple)),
    augment=st.builds(Augment, flip=st.booleans(), shift=st.integers(0, 99), mixup=positive),
    optimizer=st.builds(Optimizer, lr=positive, betas=st.tuples(share, share)),
    schedule=st.builds(Schedule, warmup=st.sampled_from(["0 steps", "10 %", "3 epochs"])),
    duration=durations,
    ema=share,
    compile=st.sampled_from(["auto", "on", "off"]),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=50)
@given(recipes)
def test_any_recipe_survives_yaml(record):
    assert from_dict(Recipe, yaml.safe_load(write_yaml(record))) == record


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_other_value_gives_a_recipe_or_a_user_error(value):
    for field in dataclasses.fields(Recipe):
        with contextlib.suppress(UserError):
            assert isinstance(from_dict(Recipe, {field.name: value}), Recipe)


def test_preprocess_survives_plain_values():
    record = Preprocess(
        image_size=(24, 32),
        resize="squash",
        resize_to=40,
        mean=(0.1, 0.2, 0.3),
        class_names=("coat", "été"),
    )
    assert from_dict(Preprocess, to_dict(record)) == record


def test_lists_and_texts_are_not_confused():
    @dataclasses.dataclass(frozen=True)
    class Sample:
        names: tuple[str, ...] = ()
        kind: Literal["a", "b"] = "a"

    assert from_dict(Sample, {"names": ["x", "y"]}).names == ("x", "y")
    with pytest.raises(UserError, match=r"names must be a list \(a text each\), found 'xy'"):
        from_dict(Sample, {"names": "xy"})


def test_what_may_be_left_out_is_called_by_what_else_it_may_be():
    @dataclasses.dataclass(frozen=True)
    class Sample:
        count: int | None = 3

    assert from_dict(Sample, {"count": None}).count is None
    with pytest.raises(UserError, match=r"count must be a whole number, found 'x'"):
        from_dict(Sample, {"count": "x"})
