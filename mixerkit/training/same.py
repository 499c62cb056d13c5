"""What a run that goes on must have in common with what it was started with."""

from dataclasses import fields, replace

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.sources import Splits
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.training.setup import images_of

NAMES_SHOWN = 5


def check_same(run: RunFolder, recipe: Recipe, splits: Splits) -> None:
    """A run goes on with the images and the recipe that it was started with; the images may have
    moved."""
    choices, found = run.choices(), images_of(splits)
    if choices.setdefault("images", found) != found:
        raise UserError(
            f"{run.path} was started on other images ({choices['images']}) than are here now "
            f"({found}): put the data back as it was, or start a new run in another folder."
        )
    names = list(splits.train.class_names)
    if choices.setdefault("classes", names) != names:
        raise UserError(
            f"{run.path} was started on images of other classes: expected "
            f"{', '.join(choices['classes'][:NAMES_SHOWN])}, found "
            f"{', '.join(names[:NAMES_SHOWN])}. Put the names of their folders back."
        )
    stored = run.recipe()
    data = replace(recipe.data, source=stored.data.source, root=stored.data.root)
    recipe = replace(recipe, data=data)
    changed = [f.name for f in fields(Recipe) if getattr(stored, f.name) != getattr(recipe, f.name)]
    if changed:
        raise UserError(
            f"{run.path} was started with other settings of {', '.join(changed)}: resume it with "
            f"its own recipe, or start a new run in another folder."
        )
    run.save_choices(choices)
