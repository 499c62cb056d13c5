"""A study, as data: one recipe, the factors that are varied, and what is held equal.

    name: pooling
    recipe: fashion-demo
    set: {duration: 2 epochs, optimizer: {name: adamw, lr: 0.003}}
    factors:
      model.token_mixer: [mlp, pool]
      regularisation:
        without: {}
        with: {augment: {mixup: 0.5}, model: {drop_path: 0.1}}
      seed: [0, 1, 2]
    match: {by: macs, change: channel_width}

Every combination of the factors' levels is a configuration, which is one run.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mixerkit.errors import UserError, unknown
from mixerkit.model.cost import cost
from mixerkit.spec.choices import check_choices
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.recipe import Init, Recipe
from mixerkit.spec.recipes import recipe
from mixerkit.spec.strict import from_dict, read_yaml, shown

Changes = dict[str, Any]
KEYS = ("name", "recipe", "set", "factors", "match")
RESERVED = (
    "levels", "parameters", "macs", "training_macs", "seconds", "runs", "each",
    "held_out_accuracy", "test_accuracy", "training_loss", "course", "step_seconds",
    "images_per_second",
)  # fmt: skip
"""What a row of averages says besides its levels."""
PEERS = ("mixer", "vit", "resnet", "resnet-7x7")
"""Models of timm (`peers.py`)."""
ORDERS = ("patches", "pixels")
"""In which a model can see them (`permutation.py`)."""
BESIDE = {"peer": PEERS, "order": ORDERS}
"""What a level can say besides settings of a recipe."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SEED = "seed"
"""The factor over which figures are averaged."""
MOST = 10_000
"""Configurations of one study."""


@dataclass(frozen=True)
class Match:
    """What all configurations have as much of as the first one: `by`; and what is changed for
    that, `change`, a number of the model."""

    by: Literal["nothing", "parameters", "macs"] = "nothing"
    change: Literal["channel_width", "token_width", "width"] = "channel_width"

    def __post_init__(self) -> None:
        check_choices(self, "match.")


@dataclass(frozen=True)
class Configuration:
    """One run of a study: the level of each factor, and the recipe that they make. `peer`: the
    model of timm that stands in the place of the recipe's ("" for none). `order`: in which the
    model sees patches or pixels (`permutation.py`; "" as they are)."""

    levels: dict[str, str]
    recipe: Recipe
    peer: str = ""
    order: str = ""

    @property
    def name(self) -> str:
        """Of its folder: the levels, in the order of the factors."""
        words = [f"{factor.rpartition('.')[2]}={level}" for factor, level in self.levels.items()]
        # with the + of 1e+30, which would be another number
        return ",".join(re.sub(r"[^A-Za-z0-9.=_+]+", "-", word).strip("-") for word in words)

    @property
    def arm(self) -> dict[str, str]:
        """The levels but for the seed: runs of one arm are averaged."""
        return {factor: level for factor, level in self.levels.items() if factor != SEED}


@dataclass(frozen=True)
class Study:
    """`factors`: name → label of each level → the changes that it makes to the recipe; a change of
    `peer` puts a model of timm in the place of the recipe's, one of `order` reorders its pixels."""

    name: str
    base: Recipe
    factors: dict[str, dict[str, Changes]]
    match: Match = field(default_factory=Match)

    def configurations(self) -> list[Configuration]:
        """Every combination of levels, the last factor varying fastest, matched to the first."""
        count = 1
        for levels in self.factors.values():
            count *= len(levels)
        if count > MOST:
            raise UserError(f"{self.name} has {count:,} configurations; at most {MOST:,} fit.")
        combinations = itertools.product(*(levels.items() for levels in self.factors.values()))
        made = [self._made(combination) for combination in combinations]
        check_names(self.name, made)
        if self.match.by != "nothing" and any(each.peer for each in made):
            raise UserError(
                f"{self.name}: timm's models cannot be matched: leave match out, and choose their "
                f"sizes (`--dry-run` shows what each costs)."
            )
        return [self._matched(each, made[0]) for each in made]

    def _made(self, levels: tuple[tuple[str, Changes], ...]) -> Configuration:
        changes: Changes = {}
        for _, each in levels:
            changes = merged(changes, each)
        beside = {name: str(changes.pop(name, "")) for name in BESIDE}
        for name, value in beside.items():
            if value and value not in BESIDE[name]:
                raise unknown(name, value, BESIDE[name])
        labels = {factor: label for factor, (label, _) in zip(self.factors, levels, strict=True)}
        where = ", ".join(f"{factor} {label}" for factor, label in labels.items())
        try:
            settings = from_dict(Recipe, changes, base=self.base)
        except UserError as error:
            raise UserError(f"{self.name}, {where}: {error}") from error
        if beside["order"]:
            _check_order(settings, f"{self.name}, {where}")
        return Configuration(labels, replace(settings, name=self.name), **beside)

    def _matched(self, one: Configuration, first: Configuration) -> Configuration:
        """`one` with as much of what is matched as `first`."""
        if self.match.by == "nothing" or one is first:
            return one
        goal = _amount(first.recipe.model, self.match.by)
        try:
            model = match(one.recipe.model, self.match, goal)
        except UserError as error:
            raise UserError(f"{self.name}, {one.name}: {error}") from error
        return replace(one, recipe=replace(one.recipe, model=model))


@dataclass(frozen=True)
class Trials:
    """Configurations that are no grid, under one name. `weights`: the checksum of the model that
    all begin from; `possible`: those that might be listed, where that depends on results."""

    name: str
    listed: tuple[Configuration, ...]
    weights: str = ""
    possible: tuple[Configuration, ...] = ()

    def configurations(self) -> list[Configuration]:
        """As they were listed."""
        check_names(self.name, self.possible or self.listed)
        return list(self.listed)


def check_names(study: str, made: Sequence[Configuration]) -> None:
    """Refuse configurations of one name, which would share a run folder."""
    by_name: dict[str, list[Configuration]] = {}
    for one in made:
        by_name.setdefault(one.name, []).append(one)
    for name, same in by_name.items():
        if len(same) > 1:
            meant = " and ".join(str(one.levels) for one in same[:2])
            raise UserError(
                f"{study}: {len(same)} configurations would be called {name}: {meant}. Give them "
                f"names that differ in letters or digits."
            )


def _check_order(settings: Recipe, where: str) -> None:
    """Refuse what a model behind another order of pixels would ignore."""
    ignored = {
        "init": settings.init != Init(),
        "model.pad": settings.model.pad,
        "model.drop_path": settings.model.drop_path > 0,
        "activation_checkpointing": settings.activation_checkpointing,
    }
    found = [name for name, given in ignored.items() if given]
    if found:
        raise UserError(f"{where}: an order does not go with {', '.join(found)}: leave it out.")


def match(model: MixerConfig, how: Match, goal: int) -> MixerConfig:
    """`model` with the value of `how.change` at which it has nearest to `goal` of `how.by`, which
    grows with it."""
    group = model.token_groups if how.change == "width" else 1

    def changed(value: int) -> MixerConfig:
        changes: Changes = {how.change: value * group}
        return replace(model, **changes)

    def amount(value: int) -> int:
        return _amount(changed(value), how.by)

    low, high = 1, 2
    if amount(low) == amount(high):
        raise UserError(f"Its {how.by} do not depend on {how.change}: match by changing another.")
    if amount(low) > goal:
        raise UserError(
            f"With {how.change} {group} it has {amount(low):,} {how.by} already, more than the "
            f"{goal:,} of the first configuration: make it smaller in another way."
        )
    while amount(high) < goal:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if amount(middle) <= goal else (low, middle)
    nearest = min((low, high), key=lambda value: abs(amount(value) - goal))
    return changed(nearest)


def _amount(model: MixerConfig, by: str) -> int:
    priced = cost(model)
    return priced.macs if by == "macs" else priced.parameters


def merged(one: Changes, other: Changes) -> Changes:
    """Nested settings of both; where both say something, `other`'s."""
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def read_study(path: Path) -> Study:
    """A study in a YAML file (the head of this module shows one)."""
    values = read_yaml(path)
    try:
        return _from_values(values, path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _from_values(values: Changes, stem: str) -> Study:
    for key in values:
        if key not in KEYS:
            raise unknown("setting of a study", str(key), KEYS)
    base = recipe(str(values.get("recipe", "fashion-demo")))
    base = from_dict(Recipe, values.get("set", {}), "set", base)
    factors = values.get("factors")
    if not isinstance(factors, dict) or not factors:
        raise UserError(
            f"factors must name what is varied, such as 'model.token_mixer: [mlp, pool]', found "
            f"{shown(factors)}."
        )
    for name in factors:
        if name in RESERVED:
            raise UserError(f"A factor cannot be called {name}: rows say something else by it.")
    levels = {str(name): _levels(str(name), given) for name, given in factors.items()}
    name = str(values.get("name", stem))
    if not NAME.fullmatch(name):
        raise UserError(
            f"name is a folder's too: expected letters, digits, ., _ and -, found {shown(name)}."
        )
    matched = from_dict(Match, values.get("match", {}), "match", Match())
    return Study(name, base, levels, matched)


def _levels(name: str, given: Any) -> dict[str, Changes]:
    """A list: values of the setting that the factor is called by. A mapping: for each label what it
    changes."""
    if isinstance(given, list) and given:
        found = {_label(value): nested(name, value) for value in given}
        if len(found) == len(given):
            return found
    elif isinstance(given, dict) and given:
        return {
            str(label): from_mapping(f"factors.{name}.{label}", changes)
            for label, changes in given.items()
        }
    raise UserError(
        f"factors.{name} must be a list of different values, or a mapping of labels to changes, "
        f"found {shown(given)}."
    )


def from_mapping(where: str, changes: Any) -> Changes:
    """The changes of a level."""
    if changes is None:
        return {}
    if not isinstance(changes, dict):
        raise UserError(f"{where} must be a mapping of settings, found {shown(changes)}.")
    return changes


def _label(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def nested(name: str, value: Any) -> Changes:
    """ "model.width", 64 → {"model": {"width": 64}}."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)
