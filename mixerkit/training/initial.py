"""The weights that a run starts from when they are not random: any stored Mixer, made to fit."""

import os
from dataclasses import fields, replace

import torch
from torch import Tensor

from mixerkit.checkpoint.load import load
from mixerkit.errors import UserError, warn
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import adapt
from mixerkit.spec import recipes
from mixerkit.spec.mixer import MixerConfig, Size, is_variant
from mixerkit.spec.recipe import Recipe

OF_TRAINING = {"num_classes", "head_bias", "dropout", "drop_path", "drop_path_kind"}
"""Settings of a model that may differ from those of the weights it starts from."""
IMAGENET_21K_CLASSES = 21_843


def initial_weights(recipe: Recipe, class_names: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of `recipe.init` for `recipe.model`; none where it starts from random ones.

    Image size, patch size and channels are changed as by `load`. The head is fresh (zeros), or kept
    for the same classes. Raises `UserError` where anything else of the model is another one.
    """
    init, config = recipe.init, recipe.model
    if not init.source:
        return {}
    if is_variant(init.source) and not os.path.lexists(init.source):
        raise UserError(f"init.source: {init.source} is a variant, which has no stored weights.")
    source = load(init.source)
    kept = init.head == "kept"
    if kept:
        _check_classes(source, init.source, class_names)
    fitted, tensors = _fitted(source.config, dict(source.state_dict()), recipe)
    _check_same(init.source, fitted, config)
    _advise(source, recipe)
    if not kept:
        tensors["head.weight"] = torch.zeros(config.num_classes, config.width)
        tensors["head.bias"] = torch.full((config.num_classes,), config.head_bias)
    return tensors


def suited(recipe: Recipe, image_size: Size | None = None) -> Recipe:
    """The recipe with the model of the weights that `recipe.init.source` names, at `image_size`
    (its own, if not given), and with images prepared as they were for it."""
    init = recipe.init
    model = load(
        init.source, image_size=image_size, enlargement=init.enlargement, method=init.method
    )
    prepared = model.preprocess
    if prepared is None:
        raise UserError(f"{init.source} is a variant, which has no stored weights.")
    config = replace(model.config, **{name: getattr(recipe.model, name) for name in OF_TRAINING})
    data = replace(
        recipe.data,
        resize="shortest" if prepared.resize == "none" else prepared.resize,
        resize_to=prepared.resize_to,
        interpolation=prepared.interpolation,
        mean=prepared.mean,
        std=prepared.std,
    )
    return replace(recipe, model=config, data=data)


def first_stage(recipe: Recipe) -> Recipe | None:
    """What `recipe.init.recipe` names, for the recipe's images, seed and machine; None where it
    names nothing. Raises `UserError` where its model could not be grown into the recipe's."""
    if not recipe.init.recipe:
        return None
    named = recipes.recipe(recipe.init.recipe)
    data, own = recipe.data, named.data
    stage = replace(
        named,
        model=replace(named.model, num_classes=recipe.model.num_classes),
        data=replace(
            own, source=data.source, root=data.root, holdout=data.holdout,
            split_seed=data.split_seed, share=data.share, workers=data.workers, memory=data.memory,
            max_unreadable=data.max_unreadable, patience=data.patience,
        ),
        evaluate=replace(named.evaluate, test=False),
        strategy=recipe.strategy,
        seed=recipe.seed,
        threads=recipe.threads,
    )  # fmt: skip
    if stage.init.recipe:
        raise UserError(f"{recipe.init.recipe} has itself a recipe to train first: only one may.")
    fitted, _ = _fitted(stage.model, dict(MlpMixer(stage.model).state_dict()), recipe)
    _check_same(recipe.init.recipe, fitted, recipe.model)
    return stage


def _fitted(
    config: MixerConfig, tensors: dict[str, Tensor], recipe: Recipe
) -> tuple[MixerConfig, dict[str, Tensor]]:
    """A model changed to the sizes of the recipe's."""
    wanted, init = recipe.model, recipe.init
    return adapt(
        config,
        tensors,
        image_size=wanted.image_size,
        patch_size=wanted.patch_size,
        in_channels=wanted.in_channels,
        enlargement=init.enlargement,
        method=init.method,
    )


def _check_same(source: str, found: MixerConfig, wanted: MixerConfig) -> None:
    values = {
        field.name: (getattr(found, field.name), getattr(wanted, field.name))
        for field in fields(MixerConfig)
        if field.name not in OF_TRAINING
    }
    lines = "\n  ".join(
        f"model.{name}: {theirs!r} in the weights, {ours!r} in the recipe"
        for name, (theirs, ours) in values.items()
        if theirs != ours
    )
    if lines:
        raise UserError(
            f"{source} at this image and patch size is another model than the recipe's:\n  {lines}"
        )


def _check_classes(model: MlpMixer, source: str, class_names: tuple[str, ...]) -> None:
    """The head of `model` can be kept: it has the same classes in the same order."""
    known = model.preprocess.class_names if model.preprocess else ()
    if known and known != class_names:
        new = [name for name in class_names if name not in known]
        which = f"'{new[0]}' is none of its classes" if new else "their order or number differs"
        raise UserError(
            f"The head of {source} cannot be kept, for the images have other classes ({which}): "
            f"use init.head=fresh."
        )
    if model.config.num_classes != len(class_names):
        raise UserError(
            f"The head of {source} has {model.config.num_classes:,} classes and the images have "
            f"{len(class_names):,}: use init.head=fresh."
        )


def _advise(model: MlpMixer, recipe: Recipe) -> None:
    """Google's weights of ImageNet-21k, which no other published Mixer has as many classes as,
    want SGD: MIIL measured 91.7 % on CIFAR-100 with it and 84.5 % with AdamW."""
    optimizer = recipe.optimizer.name
    if model.config.num_classes == IMAGENET_21K_CLASSES and optimizer != "sgd":
        warn(
            f"Google's ImageNet-21k weights lose accuracy under {optimizer} (with AdamW about "
            f"seven points on CIFAR-100, as MIIL measured): optimizer.name=sgd is better."
        )
