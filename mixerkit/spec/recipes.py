"""The named recipes. Each docstring gives its command, hardware, time and result."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixerkit.errors import UserError, unknown
from mixerkit.spec import fine_tuning
from mixerkit.spec.fine_tuning import finetune
from mixerkit.spec.mixer import variant
from mixerkit.spec.paper_recipes import PAPER_RECIPES
from mixerkit.spec.recipe import Augment, Data, Init, Loss, Optimizer, Recipe, Schedule
from mixerkit.spec.strict import from_dict, read_yaml, shown


def fashion_demo() -> Recipe:
    """A small Mixer on Fashion-MNIST in under three minutes on two cores.

    `mixer demo`; on two AVX2 cores 2:38 from start to report and 90.8 % of the test images
    (results/fashion-demo.json). docs/log.md tells how its settings were found.
    """
    return Recipe(
        name="fashion-demo",
        model=variant("N/7", in_channels=1, num_classes=10),
        data=Data(
            source="fashion-mnist",
            holdout=1000,  # settings were chosen with 5000 held out (docs/log.md)
            resize="shortest",
            mean=(0.286,),
            std=(0.353,),
        ),
        augment=Augment(flip=False, shift=1),
        optimizer=Optimizer(name="muon", lr=0.01, adamw_lr=0.005, momentum=0.95, betas=(0.9, 0.99)),
        schedule=Schedule(warmup="10 %", decay="linear"),
        loss=Loss(label_smoothing=0.05),
        duration="8 epochs",
        batch_size=128,
        compile="off",
    )


def fashion_best() -> Recipe:
    """The most accurate Mixer on Fashion-MNIST that two cores train in about 100 minutes.

    `mixer train fashion-best`: patches of seven pixels at 28 px first (`fashion-best-start`), then
    the same patches at 49 px, grown by surgery. On two cores with AVX-512 and bfloat16 products
    94.26 % of the test images in 114 minutes, other work beside it and six kills included
    (results/fashion-best.json). docs/log.md tells what was tried.
    """
    start = fashion_best_start()
    return replace(
        start,
        name="fashion-best",
        model=replace(start.model, image_size=49),
        init=Init(recipe="fashion-best-start", head="kept", enlargement="resample"),
        duration="50 epochs",
    )


def fashion_best_start() -> Recipe:
    """What `fashion-best` grows from, which trains it first."""
    small = fashion_demo()
    return replace(
        small,
        name="fashion-best-start",
        model=variant("T/7", image_size=28, in_channels=1, num_classes=10, gelu="erf"),
        augment=Augment(
            flip=True, shift=2, cutmix=1.0, mix_probability=0.5, mix_group=1, erase=0.15
        ),
        optimizer=replace(small.optimizer, lr=0.02, adamw_lr=0.003),
        duration="40 epochs",
        precision="bfloat16",
    )


def photos_64() -> Recipe:
    """Any folder of photographs, one sub-folder per class, at 64 px: the place to start.

    `mixer train photos-64 --data.source FOLDER`.
    """
    return Recipe(
        name="photos-64",
        model=variant("T/8", in_channels=3, num_classes=10),
        data=Data(source="photos", holdout=0.15, resize="shortest", resize_to=72),
        augment=Augment(flip=True, shift=4),
        optimizer=Optimizer(name="muon", lr=0.02, adamw_lr=0.003, momentum=0.95),
        loss=Loss(label_smoothing=0.1),
        duration="30 epochs",
        batch_size=64,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "fashion-demo": fashion_demo,
    "fashion-best": fashion_best,
    "fashion-best-start": fashion_best_start,
    "photos-64": photos_64,
    "finetune": finetune,
    **PAPER_RECIPES,
    **fine_tuning.PAPER_RECIPES,
}


def recipe(source: str) -> Recipe:
    """The recipe with this name, or read from a YAML file or a run folder's `recipe.yaml`.

    A file may start from a named recipe with `extends: NAME` and give only what differs.
    """
    if source in RECIPES:
        return RECIPES[source]()
    path = Path(source)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise unknown("recipe", source, RECIPES)
    if not path.is_file():
        raise UserError(f"No recipe file {path}. Named recipes: {', '.join(RECIPES)}.")
    values = read_yaml(path)
    base = values.pop("extends", None)
    if base is not None and str(base) not in RECIPES:
        raise unknown("recipe to extend", shown(base).strip("'"), RECIPES)
    try:
        return from_dict(Recipe, values, base=RECIPES[base]() if base else None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
