"""`mixer recipes`: the recipes that come with mixerkit, and any recipe as YAML."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import tyro

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.running import recipe_named
from mixerkit.cli.text import table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.model.cost import cost
from mixerkit.spec.beside_paper import beside_paper
from mixerkit.spec.mixer import variant_of
from mixerkit.spec.recipe import Recipe
from mixerkit.spec.recipes import RECIPES
from mixerkit.spec.strict import to_dict, write_yaml

EXAMPLES = """\
  mixer recipes
  mixer recipes show fashion-demo > my-recipe.yaml
  mixer recipes show runs/fashion-demo --json
  mixer recipes show b16-imagenet1k --diff-paper       # every setting beside the published one
"""


@dataclass(frozen=True)
class Recipes:
    """List the recipes, or print one as YAML: save it, change it, and train by it."""

    action: tyro.conf.Positional[Literal["list", "show"]] = "list"
    """`list`, or `show` followed by a name, a YAML file or a run folder."""
    recipe: Annotated[Word, shown_as("[RECIPE]")] = ""
    """What to show."""
    diff_paper: Flag = False
    """With `show`: every published setting beside the recipe's; a difference says why."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer recipes` with `words`."""
    given = parse(Recipes, words, command="recipes", examples=EXAMPLES)
    if given.action == "show":
        if not given.recipe:
            raise UserError(f"Show which recipe? Recipes: {', '.join(RECIPES)}.")
        found = recipe_named(given.recipe)
        if given.diff_paper:
            return _beside_paper(found, given.json)
        print(json.dumps(to_dict(found), indent=2) if given.json else write_yaml(found).rstrip())
        return EXIT_DONE
    if given.diff_paper:
        raise UserError("--diff-paper goes with `show` and a recipe of the paper's.")
    if given.recipe:
        raise UserError(f"`list` takes no recipe, found '{given.recipe}': say `show` instead.")
    rows = [_describe(name) for name in RECIPES]
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        columns = ("name", "model", "parameters", "data", "duration", "what")
        print(table([columns, *([row[key] for key in columns] for row in rows)], left=6))
    return EXIT_DONE


def _beside_paper(found: Recipe, as_json: bool) -> int:
    rows = beside_paper(found)
    if as_json:
        print(json.dumps([asdict(row) | {"same": row.same} for row in rows], indent=2))
        return EXIT_DONE
    lines = [("", "setting", "published", "here", "source")]
    for row in rows:
        values = (str(row.published), str(row.ours))
        lines.append(("" if row.same else "≠", row.setting, *values, row.source))
    print(table(lines, left=5))
    for row in rows:
        if not row.same:
            print(f"≠ {row.setting}: {row.note or 'no reason is known: it was changed'}")
    return EXIT_DONE


def _describe(name: str) -> dict[str, str]:
    made: Recipe = RECIPES[name]()
    return {
        "name": name,
        "model": variant_of(made.model),
        "parameters": f"{cost(made.model).parameters:,}",
        "data": made.data.source,
        "duration": made.duration,
        "what": (RECIPES[name].__doc__ or "").strip().splitlines()[0],
    }
