"""A recipe's settings beside what the paper's authors published."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from mixerkit.errors import UserError
from mixerkit.spec import fine_tuning, paper_recipes
from mixerkit.spec.recipe import Recipe

PUBLISHED = {
    **dict.fromkeys(paper_recipes.PAPER_RECIPES, paper_recipes.published_settings),
    **dict.fromkeys(fine_tuning.PAPER_RECIPES, fine_tuning.published_settings),
}
NOTES = {
    "augment.mix_group": "published: one draw for the images of each device, so that the result "
    "depends on how many there are; here one for as many neighbours in the global batch",
    "duration": "the paper has two runs; this is the longer one",
    "data.holdout": "the images come with a validation split of their own",
    "optimizer.lr": "one of the published rates: the best is found on held-out images, and all "
    "images are then trained on (data.holdout=0)",
}
"""Setting → why ours may differ from what was published."""


@dataclass(frozen=True)
class Compared:
    """A setting beside what was published; `source` says where. `note` explains a difference."""

    setting: str
    published: Any
    ours: Any
    source: str
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether ours is what was published."""
        return bool(self.published == self.ours)


def beside_paper(recipe: Recipe) -> list[Compared]:
    """Every setting that was published for the recipe's name, and the recipe's own value.

    Raises `UserError` where the paper has no recipe of that name.
    """
    if recipe.name not in PUBLISHED:
        raise UserError(f"The paper has no recipe '{recipe.name}'. It has {', '.join(PUBLISHED)}.")
    rows = []
    for source, settings in PUBLISHED[recipe.name](recipe.name).items():
        for setting, value in settings.items():
            ours = attrgetter(setting)(recipe)
            note = "" if ours == value else NOTES.get(setting, "")
            rows.append(Compared(setting, value, ours, source, note))
    return rows
