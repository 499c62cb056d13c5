"""`mixer finetune`: any stored Mixer, trained further on a folder of images, at any resolution."""

from dataclasses import dataclass, replace
from typing import Annotated

from mixerkit import launch
from mixerkit.cli.arguments import (
    WITHOUT_PREFIX,
    Flag,
    Word,
    leading_word,
    parse,
    shown_as,
    value_of,
    wants_help,
)
from mixerkit.cli.running import recipe_named
from mixerkit.cli.train import carry_out, dry_run
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.mixer import Size
from mixerkit.spec.recipe import Recipe

EXAMPLES = """\
  mixer finetune zoo:fashion-demo --data my-photos
  mixer finetune zoo:b16-imagenet21k-google --data my-photos --image-size 448
  mixer finetune runs/photos-64@best --data others --optimizer.lr 0.01 --duration "20 epochs"
  mixer finetune Mixer-B_16.npz --recipe finetune-pets --data.root /data
  mixer finetune runs/photos-64 --data digits --augment.no-flip    # for what a mirror changes
  mixer train --resume runs/finetune                    # goes on with one that was stopped
"""

RECIPE, SWITCHES = "finetune", ("--dry-run", "--json")


@dataclass(frozen=True)
class Finetune:
    """Train the model SOURCE further, on the images of FOLDER (one sub-folder per class): its body
    as it is stored, a fresh head for the new classes.

    SOURCE is zoo:NAME, a run or one of its checkpoints (RUN@best), a model folder, hf://ORG/NAME or
    a file of weights. Images are prepared as they were for it. The run is like that of `mixer
    train`: it can be stopped, resumed and looked at.
    """

    settings: Annotated[Recipe, WITHOUT_PREFIX]
    source: Annotated[Word, shown_as("SOURCE")] = ""
    """The weights to start from; it comes first."""
    data: Annotated[str, shown_as("FOLDER")] = ""
    """The images, or a named set (same as --data.source)."""
    image_size: Size | None = None
    """Pixels, one side or height and width. Another size than the weights' is fitted to (resampled,
    or as --init.enlargement says)."""
    recipe: str = RECIPE
    """Recipe to take the settings from, such as finetune-cifar10."""
    out: Annotated[str, shown_as("FOLDER")] = ""
    """Run folder (if not given, runs/NAME, or the first free one of -2, -3, …)."""
    dry_run: Flag = False
    """Print what would happen and what it would cost; write nothing."""
    json: Flag = False
    """Print the result as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer finetune` with `words`."""
    if launch.processes() == 1 or wants_help(words):
        return _carry_out(_parse(words))
    from mixerkit.training.distributed import joined

    with joined() as world:
        world.first_says(_check_restarts)
        return _carry_out(world.after_first(lambda: _parse(words)))


def _check_restarts() -> None:
    if launch.may_restart():
        raise UserError(
            "A run that torchrun may start again is begun with `mixer train RECIPE --init.source "
            "SOURCE --out FOLDER`: leave --max-restarts out."
        )


def _carry_out(given: Finetune) -> int:
    if given.dry_run:
        return dry_run(given.settings, given.json) if launch.rank() == 0 else EXIT_DONE
    return carry_out(given.settings, given.out, given.recipe, resume=False, as_json=given.json)


def _parse(words: list[str]) -> Finetune:
    """The words over the recipe, whose model and preparation of images are the source's."""
    source = leading_word(words, SWITCHES)
    base = recipe_named(value_of("--recipe", words) or RECIPE)
    if wants_help(words):
        return _read(words, base)
    if not source:
        raise UserError(
            "Which model? It comes first: `mixer finetune SOURCE --data FOLDER`, such as "
            "`mixer finetune zoo:fashion-demo --data my-photos`."
        )
    if value_of("--init.source", words):
        raise UserError(f"The model to start from is {source}: leave --init.source out.")
    if value_of("--resume", words):
        raise UserError("`mixer train --resume RUN` goes on with a run, whatever started it.")
    data, other = value_of("--data", words), value_of("--data.source", words)
    if data and other:
        raise UserError(f"--data {data} and --data.source {other} are the same: leave one out.")
    data = data or other
    if not data and base.name == RECIPE:
        raise UserError("Which images? Say --data FOLDER, with one sub-folder per class.")
    base = replace(base, init=replace(base.init, source=source))
    if data:
        base = replace(base, data=replace(base.data, source=data))
    from mixerkit.training.initial import suited

    given = _read(words, base)
    return _read(words, suited(given.settings, given.image_size))


def _read(words: list[str], base: Recipe) -> Finetune:
    return parse(Finetune, words, command="finetune", examples=EXAMPLES, default=Finetune(base))
