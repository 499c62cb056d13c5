"""Studies as data: every combination once, matched by closed forms, errors that say where."""

from pathlib import Path

import pytest

from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Recipe
from mixerkit.study.grid import Configuration, Match, Trials, match, read_study
from mixerkit.study.named import STUDIES
from mixerkit.study.peers import cost_of

TEXT = """
recipe: fashion-demo
set: {duration: 2 epochs, optimizer: {name: adamw, lr: 0.003}}
factors:
  model.token_mixer: [mlp, pool]
  regularisation:
    without:
    with: {augment: {mixup: 0.5}, model: {drop_path: 0.1}}
  seed: [0, 1, 2]
match: {by: macs, change: channel_width}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pooling.yaml"
    path.write_text(TEXT)
    return path


def test_every_combination_is_one_configuration(file: Path) -> None:
    study = read_study(file)
    found = study.configurations()
    assert study.name == "pooling"
    assert len({one.name for one in found}) == len(found) == 2 * 2 * 3
    assert found[0].name == "token_mixer=mlp,regularisation=without,seed=0"
    last = found[-1]
    assert last.levels == {"model.token_mixer": "pool", "regularisation": "with", "seed": "2"}
    assert last.arm == {"model.token_mixer": "pool", "regularisation": "with"}
    assert (last.recipe.seed, last.recipe.augment.mixup, last.recipe.model.drop_path) == (
        2,
        0.5,
        0.1,
    )
    assert {one.recipe.duration for one in found} == {"2 epochs"}
    assert {one.recipe.optimizer.lr for one in found} == {0.003}


def test_matched_ones_cost_the_same(file: Path) -> None:
    macs = [cost(one.recipe.model).macs for one in read_study(file).configurations()]
    one_more = cost(variant("N/7", in_channels=1, num_classes=10, channel_width=257)).macs - macs[0]
    assert max(abs(each - macs[0]) for each in macs) <= one_more / 2


@pytest.mark.parametrize("by", ["parameters", "macs"])
@pytest.mark.parametrize("change", ["channel_width", "width", "token_width"])
def test_the_nearest_value_is_taken(by: str, change: str) -> None:
    """Against a search through all values."""
    model = variant("N/7", in_channels=1, num_classes=10)
    goal = getattr(cost(variant("N/7", in_channels=1, num_classes=10, width=80)), by)
    found = match(model, Match(by, change), goal)
    every = [variant("N/7", in_channels=1, num_classes=10, **{change: n}) for n in range(1, 900)]
    assert found == min(every, key=lambda each: abs(getattr(cost(each), by) - goal))


def test_widths_stay_multiples_of_the_heads() -> None:
    model = variant("N/7", token_mixer="attention", token_groups=4)
    assert match(model, Match("macs", "width"), 10**7).width % 4 == 0


def costs(name: str) -> dict[str, int]:
    """The first level of each arm of a named study → what it has of what is matched, or MACs."""
    study, found = STUDIES[name](), {}
    for one in study.configurations():
        parameters, macs = cost_of(one.peer, one.recipe.model)
        found[next(iter(one.arm.values()))] = parameters if study.match.by == "parameters" else macs
        assert not one.recipe.evaluate.test
    return found


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "frontier"])
def test_arms_of_named_studies_are_alike(name: str) -> None:
    """Those that are matched within 2 %, timm's models within 15 %."""
    pytest.importorskip("timm")
    found = costs(name)
    first = next(iter(found.values()))
    for label, amount in found.items():
        assert amount == pytest.approx(first, rel=0.15 if "timm" in label else 0.02), label


def test_the_frontier_has_four_sizes_of_each() -> None:
    pytest.importorskip("timm")
    found = costs("frontier")
    families: dict[str, list[int]] = {}
    for label, macs in found.items():
        families.setdefault(label.rpartition(" ")[0], []).append(macs)
    assert {len(sizes) for sizes in families.values()} == {4} and len(families) == 5
    assert all(sizes == sorted(sizes) for sizes in families.values())
    smallest, largest = ([sizes[end] for sizes in families.values()] for end in (0, -1))
    assert max(smallest) < 2.2 * min(smallest) and max(largest) < 2.2 * min(largest)


MISTAKES = {
    "factor: {a: [1]}": "Unknown setting of a study 'factor'. Did you mean 'factors'?",
    "name: x": "factors must name what is varied",
    "factors: {seed: []}": "factors.seed must be a list of different values",
    "factors: {seed: [1, 1]}": "factors.seed must be a list of different values",
    "factors: {macs: {a: {}}}": "A factor cannot be called macs",
    "{factors: {seed: [0]}, name: ../x}": "name is a folder's too",
    "factors: {a: {b: {peer: vitt}}}": "Unknown peer 'vitt'. Did you mean 'vit'?",
    "{factors: {a: {b: {peer: vit}}}, match: {by: macs}}": "timm's models cannot be matched",
    "{factors: {model.token_mixer: [mlp, pool]}, match: {by: macs, change: token_width}}": (
        "Its macs do not depend on token_width"
    ),
    "factors: {seed: 3}": "factors.seed must be a list of different values",
    "factors: {x: {a: 3}}": "factors.x.a must be a mapping of settings, found 3",
    "factors: {model.depht: [1]}": "model.depht 1: Unknown setting 'model.depht'",
    "factors: {seed: [0], model.width: [64, -1]}": "width must be a whole number",
    "{factors: {seed: [0]}, recipe: nothing}": "Unknown recipe 'nothing'",
    "{factors: {seed: [0]}, set: {durations: 1}}": "Unknown setting 'set.durations'",
    "{factors: {seed: [0]}, match: {by: time}}": "match.by must be one of nothing, parameters",
    "{factors: {model.depth: [1, 9]}, match: {by: macs}}": "more than the",
    "factors: {model.depth: ['2', 2]}": "factors.model.depth must be a list of different values",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_study(path).configurations()
    assert MISTAKES[text] in str(caught.value)


def test_trials_of_one_name_are_refused() -> None:
    one, other, third = (Configuration({"task": name}, Recipe()) for name in ("a b", "a-b", "c"))
    assert Trials("x", (one, third)).configurations() == [one, third]
    for trials in (Trials("x", (one, third, other)), Trials("x", (one,), possible=(one, other))):
        with pytest.raises(UserError, match=r"2 configurations would be called task=a-b.*'a b'"):
            trials.configurations()


def test_a_large_number_is_not_named_like_a_small_one() -> None:
    names = [Configuration({"lr": str(lr)}, Recipe()).name for lr in (1e30, 1e-30)]
    assert names == ["lr=1e+30", "lr=1e-30"]
