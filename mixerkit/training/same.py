"""What a run that goes on must have in common with what it was started with."""

from dataclasses import fields, replace

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.sources import Splits
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Recipe
from mixerkit.training.images import images_of, note_on_changes
from mixerkit.training.progress import Watcher

NAMES_SHOWN = 5


def check_same(
    run: RunFolder, recipe: Recipe, splits: Splits, contents: list[str], watch: Watcher
) -> None:
    """A run goes on with the images and the recipe that it was started with. The images may have
    moved; that some have other `contents` (`contents_of`) is said, for broken ones are to be
    replaced."""
    choices, found = run.choices(), images_of(splits)
    if choices.setdefault("images", found) != found:
        raise UserError(
            f"{run.path} was started on other images ({choices['images']}) than are here now "
            f"({found}): put the data back as it was, also files that were broken and taken out, "
            f"or start a new run in another folder."
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
    note = note_on_changes(choices.setdefault("contents", contents), contents)
    if note:
        watch.say(note)
    run.save_choices(choices)
